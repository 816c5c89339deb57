//! Reads the services in a file or folder of Kubernetes objects, as far as the examples need them.
//!
//! kubedns reads the same files and reports errors in them. This module skips what it cannot read.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A Service, with the fields that queries depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.clusterIP` if it is an address.
    pub cluster_ip: Option<IpAddr>,
    /// `spec.clusterIP: None`.
    pub headless: bool,
    /// `spec.type: ExternalName`.
    pub external: bool,
    /// The first named port and its protocol, in lower case.
    pub port: Option<(String, String)>,
}

impl Service {
    /// Returns its DNS name.
    pub fn owner_name(&self, domain: &str) -> String {
        format!("{}.{}.svc.{domain}", self.name, self.namespace)
    }
}

/// Returns every Service at `path`, a file or a folder. Those of the cluster itself are last.
pub fn services(path: &Path) -> Vec<Service> {
    let mut services: Vec<Service> = files(path)
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| serde_saphyr::from_multiple::<Value>(&text).unwrap_or_default())
        .flat_map(|object| match object["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![object],
        })
        .filter_map(|object| service(&object))
        .collect();
    let is_system = |service: &Service| SYSTEM.contains(&service.namespace.as_str());
    services.sort_by_key(|service| {
        (is_system(service), service.namespace.clone(), service.name.clone())
    });
    services
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let is_objects = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("yaml" | "yml" | "json"))
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_objects).collect()
}

fn service(object: &Value) -> Option<Service> {
    if object["kind"] != "Service" {
        return None;
    }
    let spec = &object["spec"];
    let port = spec["ports"].as_array().into_iter().flatten().find_map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        Some((port["name"].as_str()?.to_owned(), protocol.to_ascii_lowercase()))
    });
    Some(Service {
        namespace: object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned(),
        name: object["metadata"]["name"].as_str()?.to_owned(),
        cluster_ip: spec["clusterIP"].as_str().and_then(|text| text.parse().ok()),
        headless: spec["clusterIP"] == "None",
        external: spec["type"] == "ExternalName",
        port,
    })
}

/// Namespaces that every cluster has. The user's own services make better examples.
const SYSTEM: [&str; 2] = ["default", "kube-system"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_from_documents_and_lists() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write(
            "a.yaml",
            "kind: Service\nmetadata: {name: kubernetes}\nspec: {clusterIP: 10.96.0.1}\n---\n\
             kind: Namespace\nmetadata: {name: shop}\n",
        );
        write(
            "b.json",
            r#"{"kind": "List", "items": [{"kind": "Service",
                "metadata": {"name": "db", "namespace": "shop"},
                "spec": {"clusterIP": "None", "ports": [{"port": 1}, {"name": "sql", "port": 2}]}
            }]}"#,
        );
        write("broken.yaml", "kind: [Service\n");
        write("notes.txt", "kind: Service\nmetadata: {name: not-an-object}\n");
        let db = Service {
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
            headless: true,
            port: Some(("sql".to_owned(), "tcp".to_owned())),
            ..Service::default()
        };
        let kubernetes = Service {
            namespace: "default".to_owned(),
            name: "kubernetes".to_owned(),
            cluster_ip: Some("10.96.0.1".parse().unwrap()),
            ..Service::default()
        };
        assert_eq!(services(directory.path()), [db, kubernetes.clone()]);
        assert_eq!(services(&directory.path().join("a.yaml")), [kubernetes]);
        assert_eq!(services(&directory.path().join("absent")), []);
    }
}
