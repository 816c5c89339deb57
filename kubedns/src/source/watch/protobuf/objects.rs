//! The numbers of the fields that are used: `generated.proto` of `k8s.io/api`. They never change.
//!
//! Core. A text that is empty in protobuf and absent in JSON is `None`, as from JSON.

use jiff::Timestamp;

use super::{Fields, Malformed, Message, Value};
use crate::project::{
    Annotations, Conditions, EndpointObject, EndpointSliceObject, Ingress, Input, Kind, Labels,
    LoadBalancer, Metadata, NamespaceObject, NodeObject, NodeSpec, PodIp, PodObject, PodStatus,
    PortObject, ServiceCidrObject, ServiceCidrSpec, ServiceObject, ServiceSpec, ServiceStatus,
    TargetRef,
};

/// Reads an object of `kind`.
pub fn input(kind: Kind, object: &[u8]) -> Result<Input, Malformed> {
    Ok(match kind {
        Kind::Service => Input::Service(Message::read(object)?),
        Kind::EndpointSlice => Input::EndpointSlice(Message::read(object)?),
        Kind::Namespace => Input::Namespace(Message::read(object)?),
        Kind::Pod => Input::Pod(Message::read(object)?),
        Kind::Node => Input::Node(Message::read(object)?),
        Kind::ServiceCidr => Input::ServiceCidr(Message::read(object)?),
        Kind::ServiceImport => return Err(Malformed("a ServiceImport is JSON")),
    })
}

impl Message for ServiceObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.metadata.merge(value.bytes()?),
            2 => self.spec.merge(value.bytes()?),
            3 => self.status.merge(value.bytes()?),
            _ => Ok(()),
        }
    }
}

impl Message for ServiceStatus {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.load_balancer.merge(value.bytes()?),
            _ => Ok(()),
        }
    }
}

impl Message for LoadBalancer {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        if number == 1 {
            self.ingress.push(Message::read(value.bytes()?)?);
        }
        Ok(())
    }
}

impl Message for Ingress {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.ip = value.some_text()?,
            2 => self.hostname = value.some_text()?,
            _ => {}
        }
        Ok(())
    }
}

impl Message for ServiceSpec {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.ports.push(service_port(value.bytes()?)?),
            3 => self.cluster_ip = value.some_text()?,
            4 => self.r#type = value.some_text()?,
            5 => self.external_ips.push(value.text()?.to_owned()),
            10 => self.external_name = value.some_text()?,
            13 => self.publish_not_ready_addresses = Some(value.truth()?),
            18 => self.cluster_ips.push(value.text()?.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// Reads a port of a Service. Its texts are always present, so empty ones count as missing.
fn service_port(bytes: &[u8]) -> Result<PortObject, Malformed> {
    let mut port = PortObject::read(bytes)?;
    port.name = port.name.filter(|name| !name.is_empty());
    port.protocol = port.protocol.filter(|protocol| !protocol.is_empty());
    Ok(port)
}

impl Message for PortObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.name = Some(value.text()?.to_owned()),
            2 => self.protocol = Some(value.text()?.to_owned()),
            3 => self.port = Some(value.number()?),
            _ => {}
        }
        Ok(())
    }
}

impl Message for EndpointSliceObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.metadata.merge(value.bytes()?)?,
            2 => self.endpoints.push(Message::read(value.bytes()?)?),
            3 => self.ports.push(Message::read(value.bytes()?)?),
            4 => self.address_type = value.some_text()?,
            _ => {}
        }
        Ok(())
    }
}

impl Message for EndpointObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.addresses.push(value.text()?.to_owned()),
            2 => self.conditions.merge(value.bytes()?)?,
            3 => self.hostname = Some(value.text()?.to_owned()),
            4 => self.target_ref.merge(value.bytes()?)?,
            7 => self.zone = Some(value.text()?.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

impl Message for Conditions {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.ready = Some(value.truth()?),
            2 => self.serving = Some(value.truth()?),
            3 => self.terminating = Some(value.truth()?),
            _ => {}
        }
        Ok(())
    }
}

impl Message for TargetRef {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.kind = value.some_text()?,
            2 => self.namespace = value.some_text()?,
            3 => self.name = value.some_text()?,
            _ => {}
        }
        Ok(())
    }
}

impl Message for NamespaceObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        if number == 1 { self.metadata.merge(value.bytes()?) } else { Ok(()) }
    }
}

impl Message for PodObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.metadata.merge(value.bytes()?),
            3 => self.status.merge(value.bytes()?),
            _ => Ok(()),
        }
    }
}

impl Message for PodStatus {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.phase = value.some_text()?,
            6 => self.pod_ip = value.some_text()?,
            12 => self.pod_ips.push(Message::read(value.bytes()?)?),
            _ => {}
        }
        Ok(())
    }
}

impl Message for PodIp {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        if number == 1 {
            self.ip = value.some_text()?;
        }
        Ok(())
    }
}

impl Message for NodeObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.metadata.merge(value.bytes()?),
            2 => self.spec.merge(value.bytes()?),
            _ => Ok(()),
        }
    }
}

impl Message for NodeSpec {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.pod_cidr = value.some_text()?,
            7 => self.pod_cidrs.push(value.text()?.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

impl Message for ServiceCidrObject {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => self.metadata.merge(value.bytes()?),
            2 => self.spec.merge(value.bytes()?),
            _ => Ok(()),
        }
    }
}

impl Message for ServiceCidrSpec {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        if number == 1 {
            self.cidrs.push(value.text()?.to_owned());
        }
        Ok(())
    }
}

impl Message for Metadata {
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed> {
        match number {
            1 => value.text()?.clone_into(&mut self.name),
            3 => self.namespace = value.some_text()?,
            6 => self.resource_version = value.some_text()?,
            8 => self.creation_timestamp = time(value)?.map(|time| time.to_string()),
            11 => {
                let (key, text) = value.entry()?;
                if let Some(label) = label(&mut self.labels, key) {
                    *label = Some(text.to_owned());
                }
            }
            12 => {
                let (key, text) = value.entry()?;
                if let Some(annotation) = annotation(&mut self.annotations, key) {
                    *annotation = Some(text.to_owned());
                }
            }
            17 => {
                for field in Fields(value.bytes()?) {
                    if let (4, value) = field? {
                        self.managed_fields.note(time(value)?);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn label<'l>(labels: &'l mut Labels, key: &str) -> Option<&'l mut Option<String>> {
    Some(match key {
        "kubernetes.io/service-name" => &mut labels.service_name,
        "multicluster.kubernetes.io/service-name" => &mut labels.imported_name,
        "multicluster.kubernetes.io/source-cluster" => &mut labels.source_cluster,
        "endpointslice.kubernetes.io/managed-by" => &mut labels.managed_by,
        "topology.kubernetes.io/zone" => &mut labels.zone,
        "topology.kubernetes.io/region" => &mut labels.region,
        "failure-domain.beta.kubernetes.io/zone" => &mut labels.zone_beta,
        "failure-domain.beta.kubernetes.io/region" => &mut labels.region_beta,
        _ => return None,
    })
}

fn annotation<'a>(annotations: &'a mut Annotations, key: &str) -> Option<&'a mut Option<String>> {
    Some(match key {
        "endpoints.kubernetes.io/last-change-trigger-time" => {
            &mut annotations.last_change_trigger_time
        }
        "service.alpha.kubernetes.io/tolerate-unready-endpoints" => {
            &mut annotations.tolerate_unready_endpoints
        }
        _ => return None,
    })
}

/// Reads a time, which the API sends in whole seconds; `None` if it is zero, as JSON's null.
fn time(value: Value<'_>) -> Result<Option<Timestamp>, Malformed> {
    let bytes = value.bytes()?;
    let mut seconds = 0;
    for field in Fields(bytes) {
        if let (1, value) = field? {
            seconds = value.number()?;
        }
    }
    Ok(Timestamp::from_second(seconds).ok().filter(|_| !bytes.is_empty()))
}
