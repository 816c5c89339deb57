//! Ports of Services and EndpointSlices, packed.
//!
//! Core. Knows the API's port lists; does not know how SRV uses them.

use super::{LeftOut, PortObject, Reason};
use crate::name::push_port_label;
use crate::records::{Ports, Protocol};

impl Ports {
    /// Packs the ports of `objects` that have a number.
    ///
    /// If a port's name cannot be an SRV label, the port is packed without it. Fails on names that
    /// are not a label, unknown protocols and numbers outside 1 to 65535.
    pub(super) fn project(objects: &[PortObject], left_out: &mut LeftOut) -> Result<Self, Reason> {
        let count = objects.len();
        if count > PORTS_MAX {
            return Err(Reason::TooMany { what: "ports", count, max: PORTS_MAX });
        }
        let mut ports = Vec::with_capacity(count);
        for object in objects {
            let Some(value) = object.port else { continue };
            let number = match u16::try_from(value) {
                Ok(number) if number > 0 => number,
                _ => return Err(Reason::Port { value }),
            };
            let protocol = match object.protocol.as_deref() {
                None | Some("" | "TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                Some(other) => return Err(Reason::Protocol { value: other.to_owned() }),
            };
            let mut label = Vec::new();
            if let Some(text) = object.name.as_deref().filter(|text| !text.is_empty()) {
                match push_port_label(&mut label, text) {
                    Ok(true) => {}
                    Ok(false) => left_out.note(Reason::PortName { name: text.to_owned() }),
                    Err(source) => return Err(Reason::Name { field: "ports.name", source }),
                }
            }
            ports.push((label, protocol, number));
        }
        Ok(Self::pack(&ports))
    }
}

/// The most ports of an EndpointSlice (API limit 20,000 since 1.33, 100 before). SRV cannot show
/// more.
const PORTS_MAX: usize = 20_000;
