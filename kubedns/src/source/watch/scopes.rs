//! The lists and watches that kubedns needs, and their paths.
//!
//! Core. Knows which namespaces and kinds are exposed; does not know the API server.

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::Resource;

use crate::config;
use crate::project::Kind;
use crate::source::update::Scope;

/// Returns the lists and watches that `exposed` needs: each kind once, or once per namespace.
pub fn scopes(exposed: &config::Scope) -> Vec<Scope> {
    let kinds = Kind::ALL.into_iter().filter(|&kind| exposed.needs(kind));
    kinds
        .flat_map(|kind| match &exposed.namespaces[..] {
            [] => vec![Scope::all(kind)],
            names => names
                .iter()
                .map(|name| Scope { kind, namespace: Some(name.as_str().into()) })
                .collect(),
        })
        .collect()
}

/// Returns the path of the collection of `scope`. `api` is the index of the version that is used,
/// among those of the kind.
pub(super) fn path(scope: &Scope, api: usize) -> String {
    let namespace = scope.namespace.as_deref();
    match scope.kind {
        Kind::Service => core::Service::url_path(&(), namespace),
        Kind::EndpointSlice => discovery::EndpointSlice::url_path(&(), namespace),
        Kind::Namespace => core::Namespace::url_path(&(), None),
        Kind::Pod => core::Pod::url_path(&(), namespace),
        Kind::Node => core::Node::url_path(&(), None),
        Kind::ServiceImport | Kind::ServiceCidr => {
            let namespaces = namespace.map(|name| format!("namespaces/{name}/"));
            let (version, plural) = (scope.kind.api_versions()[api], scope.kind.plural());
            format!("/apis/{version}/{}{plural}", namespaces.unwrap_or_default())
        }
    }
}

impl super::Options {
    /// The label selector of the objects of `kind`; `None` selects all.
    pub(super) fn labels(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Service => self.services.clone(),
            Kind::Namespace => self.namespaces.clone(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_follow_what_is_exposed() {
        let check = |namespaces: &[&str], pods: bool, expected: &[&str]| {
            let namespaces = namespaces.iter().map(|&name| name.to_owned()).collect();
            let exposed = config::Scope { namespaces, pods, ..config::Scope::default() };
            let scopes = scopes(&exposed);
            assert_eq!(scopes.iter().map(Scope::to_string).collect::<Vec<_>>(), expected);
        };
        check(&[], false, &["services", "endpointslices", "namespaces"]);
        check(&[], true, &["services", "endpointslices", "namespaces", "pods"]);
        check(
            &["a", "b"],
            false,
            &[
                "services of a",
                "services of b",
                "endpointslices of a",
                "endpointslices of b",
                "namespaces of a",
                "namespaces of b",
            ],
        );
        let exposed = config::Scope { imports: true, ..config::Scope::default() };
        assert_eq!(scopes(&exposed).last(), Some(&Scope::all(Kind::ServiceImport)));
    }
}
