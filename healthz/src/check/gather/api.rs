//! Lists of the API server. Each fails for itself, with the right that is missing.
//!
//! Edge. What an object means is the business of `cluster`.

use std::time::Duration;

use serde_json::Value;
use shared::clock::unix_ms;

use crate::check::cluster::{self, Cluster, Known, items};
use crate::page::html::encoded;
use crate::web::{Origin, Page};

/// Lists what the checks need; `service` is namespace and name of the DNS, `namespace` the own one.
///
/// Fails if the API server cannot be reached.
pub async fn gather(
    origin: &Origin,
    service: &(String, String),
    namespace: Option<&str>,
    patience: Duration,
) -> Known<Cluster> {
    let api = Api { origin, patience };
    let (space, name) = service;
    let clock_ahead_secs = ahead(&origin.get("/version", patience).await?);
    let its = format!("labelSelector=kubernetes.io/service-name%3D{name}");
    let services = format!("/api/v1/namespaces/{space}/services");
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices");
    let only = format!("fieldSelector=metadata.name%3D{name}");
    let beside = format!("/api/v1/namespaces/{space}/pods");
    let (dns, dns_slices, dns_pods, services, slices, pods, policies) = tokio::join!(
        api.list(&services, &only, cluster::service),
        api.list(&slices, &its, cluster::slice),
        api.list(&beside, "", cluster::pod),
        api.list("/api/v1/services", "", cluster::service),
        api.list("/apis/discovery.k8s.io/v1/endpointslices", "", cluster::slice),
        api.list("/api/v1/pods", "", cluster::pod),
        api.policies(namespace),
    );
    Ok(Cluster {
        clock_ahead_secs,
        dns: dns.map(|services| services.into_iter().find(|service| service.name == *name)),
        dns_slices,
        dns_pods,
        services,
        slices,
        pods,
        policies,
    })
}

/// Returns the `spec` of the Pod `name`. Fails with one line.
pub async fn pod_spec(
    origin: &Origin,
    (namespace, name): (&str, &str),
    patience: Duration,
) -> Known<Value> {
    let path = format!("/api/v1/namespaces/{}/pods", encoded(namespace));
    let only = format!("fieldSelector=metadata.name%3D{}", encoded(name));
    let api = Api { origin, patience };
    let mut found = api.list(&path, &only, |pod| pod.get("spec").cloned()).await?;
    found.pop().ok_or_else(|| format!("there is no Pod {namespace}/{name}"))
}

struct Api<'a> {
    origin: &'a Origin,
    patience: Duration,
}

impl Api<'_> {
    /// Every object at `path`, in pages.
    async fn list<T>(
        &self,
        path: &str,
        selector: &str,
        read: fn(&Value) -> Option<T>,
    ) -> Known<Vec<T>> {
        let mut all = Vec::new();
        let mut next = String::new();
        for _ in 0..PAGES_MAX {
            let page = format!("{path}?limit={PAGE_LEN}&{selector}{next}");
            let page = self.origin.get(page.trim_end_matches('&'), self.patience).await?;
            let list = body(path, &page)?;
            all.extend(items(&list, read));
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={}", encoded(token)),
                _ => return Ok(all),
            }
        }
        Err(format!("{path} has more than {} objects", PAGES_MAX * PAGE_LEN))
    }

    async fn policies(&self, namespace: Option<&str>) -> Known<Vec<cluster::Policy>> {
        let namespace = namespace.ok_or("the own namespace is not known")?;
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
        self.list(&path, "", cluster::policy).await
    }
}

/// The JSON of an answer; fails with the right that is missing.
fn body(path: &str, page: &Page) -> Known<Value> {
    let kind = path.rsplit('/').next().unwrap_or(path);
    match page.status {
        200 => serde_json::from_str(&page.body).map_err(|error| format!("{kind}: {error}")),
        403 => Err(format!("no right to list {kind}")),
        401 => Err(format!("{kind}: the API server does not accept the credentials (401)")),
        status => Err(format!("{kind}: the API server answers {status}")),
    }
}

/// How far ahead of this machine's clock the date of `page` is.
fn ahead(page: &Page) -> Option<i64> {
    let theirs = cluster::http_date(page.date.as_deref()?)?;
    Some(theirs - i64::try_from(unix_ms() / 1_000).ok()?)
}

/// Objects in one answer.
const PAGE_LEN: usize = 500;
/// A cluster with more is not compared object by object.
const PAGES_MAX: usize = 40;
