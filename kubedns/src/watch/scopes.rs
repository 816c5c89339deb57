//! Which lists and watches there are.
//!
//! Core. Knows what is exposed; does not know the API server.

use crate::config;
use crate::news::Scope;
use crate::project::Kind;

/// The lists and watches that `exposed` needs: each kind once, or once per namespace.
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
