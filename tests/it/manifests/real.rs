//! The rendered manifests and a real kube-apiserver: strict server-side dry runs, and the steps
//! into `in-place` and back, with effect.

use axum::http::Request;
use serde_json::{Value, json};
use tests::real_api::{self, RealApi};

use super::{changed, kustomizations, objects, overlay, render, root, tool};

/// Returns the collection of each kind that manifests have, or `None` if it needs a definition
/// (CRD) first.
fn collection(object: &Value) -> Option<String> {
    let plural = match object["kind"].as_str()? {
        "PodMonitor" | "ServiceMonitor" | "PrometheusRule" => return None,
        "NetworkPolicy" => "networkpolicies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let version = object["apiVersion"].as_str()?;
    let api = if version == "v1" { "api" } else { "apis" };
    Some(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{api}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/{api}/{version}/{plural}"),
    })
}

/// Applies `object` on the server's side. `query` adds parameters. Panics if the server rejects it.
async fn apply(cluster: &RealApi, object: &Value, query: &str) -> Value {
    let Some(collection) = collection(object) else { return Value::Null };
    let name = object["metadata"]["name"].as_str().unwrap();
    let uri = format!("{collection}/{name}?fieldManager=test&fieldValidation=Strict{query}");
    let request = Request::patch(uri)
        .header("content-type", "application/apply-patch+yaml")
        .body(object.to_string().into_bytes())
        .unwrap();
    let answer = cluster.client.request_text(request).await;
    let text = answer.unwrap_or_else(|error| panic!("{object:#}: {error}"));
    serde_json::from_str(&text).unwrap()
}

async fn get(cluster: &RealApi, path: &str) -> Result<Value, kube::Error> {
    let text = cluster.client.request_text(Request::get(path).body(Vec::new()).unwrap()).await?;
    Ok(serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_real_api_server_takes_each_object() {
    let (Some(tool), Some(assets)) = (tool(), real_api::assets()) else {
        println!("skipped: kubectl or KUBEBUILDER_ASSETS is missing");
        return;
    };
    let cluster = RealApi::start(&assets).await;
    let overlay_path = "manifests/overlays/fixed-address/kustomization.yaml";
    let copy = changed(overlay_path, "\"10.96.0.10\"", "\"10.0.0.10\"");
    let mut folders = kustomizations(copy.path());
    for component in ["autoscaler", "network-policy", "same-zone"] {
        folders.push(overlay(copy.path(), component));
    }
    let mut taken = 0;
    for folder in folders {
        let files = [render(&tool, &folder)];
        for object in objects(&files, "") {
            apply(&cluster, &object.value, "&dryRun=All").await;
            taken += 1;
        }
    }
    assert!(taken > 80, "{taken} objects");
}

/// The existing Service keeps its address and ports while pods are replaced.
#[tokio::test]
async fn going_in_place_and_back_leaves_what_was_there() {
    let (Some(tool), Some(assets)) = (tool(), real_api::assets()) else {
        println!("skipped: kubectl or KUBEBUILDER_ASSETS is missing");
        return;
    };
    let cluster = RealApi::start(&assets).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {
            "clusterIP": "10.0.0.10",
            "selector": {"k8s-app": "kube-dns"},
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53}],
        },
    });
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "data": {"upstreamNameservers": "[\"192.0.2.1\"]"},
    });
    apply(&cluster, &service, "").await;
    apply(&cluster, &config, "").await;
    let paths = ["services", "configmaps"];
    let paths = paths.map(|kind| format!("/api/v1/namespaces/kube-system/{kind}/kube-dns"));
    let mut before = Vec::new();
    for path in &paths {
        before.push(get(&cluster, path).await.unwrap());
    }
    for overlay in ["in-place-coredns", "in-place-kube-dns"] {
        let files = [render(&tool, &root().join("manifests/overlays").join(overlay))];
        let objects = objects(&files, "");
        for object in &objects {
            apply(&cluster, &object.value, "").await;
        }
        for object in &objects {
            let collection = collection(&object.value).unwrap();
            let path = format!("{collection}/{}", object.name().1);
            let request = Request::delete(&path).body(Vec::new()).unwrap();
            cluster.client.request_text(request).await.unwrap();
        }
        for (path, before) in paths.iter().zip(&before) {
            assert_eq!(get(&cluster, path).await.unwrap(), *before, "{overlay}: {path}");
        }
    }
}
