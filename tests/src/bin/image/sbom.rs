//! The bill of materials of a program: CycloneDX 1.6 as JSON, made from cargo's metadata.
//!
//! Core. Lists the packages that are linked into a program, not those that only build or test it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};

/// Why the list cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `cargo metadata` does not have this field.
    #[error("cargo metadata has no {0}")]
    Missing(&'static str),
    /// The workspace does not have this program.
    #[error("the workspace has no package {0}")]
    NoPackage(String),
}

/// The input of the list.
pub struct Source<'s> {
    /// The output of `cargo metadata --format-version 1` for one target.
    pub metadata: &'s Value,
    /// The text of Cargo.lock, which has the checksums.
    pub lock: &'s str,
    /// The version of the compiler, which is that of the standard library.
    pub rust: &'s str,
    /// The version of the C library; `None` if it is not known.
    pub glibc: Option<&'s str>,
    /// The creation time that is written into the list.
    pub created: Timestamp,
}

impl Source<'_> {
    /// Returns the bill of materials of the program `name`. The same source gives the same text.
    pub fn of(&self, name: &str) -> Result<String, Error> {
        let packages = self.packages()?;
        let root = packages.values().find(|package| {
            package["name"] == name && package["source"].is_null() // of the workspace
        });
        let root = root.ok_or_else(|| Error::NoPackage(name.to_owned()))?;
        let root = text(root, "id").ok_or(Error::Missing("packages[].id"))?;
        let linked = self.linked(root)?;
        let checksums = checksums(self.lock);
        let purl = |id: &str| purl(packages[id]);
        let component = |id: &&str| component(packages[*id], &checksums);
        let mut components: Vec<Value> =
            linked.keys().filter(|id| **id != root).map(component).collect();
        components.push(system("rust-std", Some(self.rust)));
        components.push(system("glibc", self.glibc));
        components.sort_by_cached_key(|component| component["bom-ref"].to_string());
        let mut dependencies: Vec<Value> = Vec::new();
        for (id, on) in &linked {
            let on: BTreeSet<String> = on.iter().map(|id| purl(id)).collect();
            dependencies.push(json!({"ref": purl(id), "dependsOn": on}));
        }
        dependencies.sort_by_cached_key(|dependency| dependency["ref"].to_string());
        let mut itself = component(&root);
        itself["type"] = json!("application");
        let bom = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"timestamp": self.created.to_string(), "component": itself},
            "components": components,
            "dependencies": dependencies,
        });
        Ok(format!("{bom:#}\n"))
    }

    /// Returns all packages by their id.
    fn packages(&self) -> Result<HashMap<&str, &Value>, Error> {
        let packages = self.metadata["packages"].as_array().ok_or(Error::Missing("packages"))?;
        let with_id = |package| Some((text(package, "id")?, package));
        let packages: Option<HashMap<_, _>> = packages.iter().map(with_id).collect();
        packages.ok_or(Error::Missing("packages[].id"))
    }

    /// Returns the packages that are linked into `root`, including `root`, each with its
    /// dependencies.
    fn linked(&self, root: &str) -> Result<BTreeMap<&str, Vec<&str>>, Error> {
        let nodes = &self.metadata["resolve"]["nodes"];
        let nodes = nodes.as_array().ok_or(Error::Missing("resolve.nodes"))?;
        let mut linked = BTreeMap::new();
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            let node = nodes.iter().find(|node| node["id"] == id);
            let node = node.ok_or(Error::Missing("resolve.nodes[].id"))?;
            let (Some(id), Some(deps)) = (text(node, "id"), node["deps"].as_array()) else {
                return Err(Error::Missing("resolve.nodes[].deps"));
            };
            // Kinds are "dev", "build", and null for what is linked.
            let is_linked = |dep: &&Value| {
                let mut kinds = dep["dep_kinds"].as_array().into_iter().flatten();
                kinds.any(|kind| kind["kind"].is_null())
            };
            let on: Option<Vec<&str>> =
                deps.iter().filter(is_linked).map(|dep| text(dep, "pkg")).collect();
            let on = on.ok_or(Error::Missing("resolve.nodes[].deps[].pkg"))?;
            open.extend(on.iter().copied().filter(|id| !linked.contains_key(id)));
            linked.insert(id, on);
        }
        Ok(linked)
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value[key].as_str()
}

/// Returns the package URL.
fn purl(package: &Value) -> String {
    let part = |key| text(package, key).unwrap_or_default();
    format!("pkg:cargo/{}@{}", part("name"), part("version"))
}

fn component(package: &Value, checksums: &HashMap<(&str, &str), &str>) -> Value {
    let name = text(package, "name").unwrap_or_default();
    let version = text(package, "version").unwrap_or_default();
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "purl": purl(package),
    });
    if let Some(licence) = text(package, "license") {
        // "MIT/Apache-2.0" is an older way to write OR.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

/// Returns a library that is linked in but is not a cargo package.
fn system(name: &str, version: Option<&str>) -> Value {
    let mut component = json!({"type": "library", "bom-ref": name, "name": name});
    if let Some(version) = version {
        component["version"] = json!(version);
    }
    component
}

/// Returns the checksums in Cargo.lock by name and version. Cargo writes one `key = "value"` on a
/// line.
fn checksums(lock: &str) -> HashMap<(&str, &str), &str> {
    let mut checksums = HashMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let mut lines = package.lines().filter_map(|line| line.split_once(" = "));
            lines.find(|(found, _)| *found == key).map(|(_, value)| value.trim_matches('"'))
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            checksums.insert((name, version), checksum);
        }
    }
    checksums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Value {
        let package = |name: &str, licence: &str, source: Value| {
            json!({"id": format!("id {name}"), "name": name, "version": "1.2.3",
                "license": licence, "source": source})
        };
        let dep = |name: &str, kind: Value| {
            let kinds = json!([{"kind": kind}]);
            json!({"pkg": format!("id {name}"), "dep_kinds": kinds})
        };
        let node = |name: &str, deps: Vec<Value>| json!({"id": format!("id {name}"), "deps": deps});
        let registry = json!("registry");
        let mut other = package("prog", "MIT", registry.clone());
        other["id"] = json!("id of another prog");
        json!({
            "packages": [
                package("prog", "Apache-2.0", Value::Null),
                other,
                package("lib", "MIT/Apache-2.0", registry.clone()),
                package("deep", "Zlib", registry.clone()),
                package("tester", "MIT", registry.clone()),
                package("builder", "MIT", registry),
            ],
            "resolve": {"nodes": [
                node("prog", vec![
                    dep("lib", Value::Null),
                    dep("tester", json!("dev")),
                    dep("builder", json!("build")),
                ]),
                node("lib", vec![dep("deep", Value::Null)]),
                node("deep", vec![dep("lib", json!("dev"))]),
                node("tester", vec![]),
                node("builder", vec![]),
            ]},
        })
    }

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"lib\"\nversion = \"1.2.3\"\n\
        source = \"registry\"\nchecksum = \"abcd\"\ndependencies = [\n \"deep\",\n]\n";

    #[test]
    fn only_what_is_linked_is_listed_with_licence_and_checksum() {
        let metadata = metadata();
        let source = Source {
            metadata: &metadata,
            lock: LOCK,
            rust: "1.95.0",
            glibc: None,
            created: Timestamp::UNIX_EPOCH,
        };
        let bom: Value = serde_json::from_str(&source.of("prog").unwrap()).unwrap();
        assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
        assert_eq!(bom["metadata"]["component"]["purl"], "pkg:cargo/prog@1.2.3");
        assert_eq!(bom["metadata"]["component"]["type"], "application");
        let components = bom["components"].as_array().unwrap();
        let names: Vec<&Value> = components.iter().map(|component| &component["name"]).collect();
        assert_eq!(names, ["glibc", "deep", "lib", "rust-std"]);
        assert_eq!(components[2]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[2]["hashes"][0]["content"], "abcd");
        assert!(components[1]["hashes"].is_null() && components[0]["version"].is_null());
        assert_eq!(components[3]["version"], "1.95.0");
        let expected = json!([
            {"ref": "pkg:cargo/deep@1.2.3", "dependsOn": []},
            {"ref": "pkg:cargo/lib@1.2.3", "dependsOn": ["pkg:cargo/deep@1.2.3"]},
            {"ref": "pkg:cargo/prog@1.2.3", "dependsOn": ["pkg:cargo/lib@1.2.3"]},
        ]);
        assert_eq!(bom["dependencies"], expected);
        assert!(matches!(source.of("lib"), Err(Error::NoPackage(_))), "not of the workspace");
    }
}
