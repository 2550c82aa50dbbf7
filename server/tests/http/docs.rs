//! /openapi.json, /docs, /.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::site::Site;

fn paths(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(p, item)| item.as_object().unwrap().keys().map(move |m| (m.clone(), p.clone())))
        .collect()
}

#[test]
fn the_document_is_the_router() {
    let site = Site::start();
    let document = site.get("/openapi.json").ok();
    assert_eq!(document["openapi"].as_str().map(|v| &v[..3]), Some("3.1"));
    let paths = paths(&document);
    for (method, path) in [
        ("post", "/v1/events"),
        ("get", "/v1/metrics"),
        ("get", "/v1/metrics/{name}"),
        ("get", "/v1/metrics/{name}/series"),
        ("get", "/v1/metrics/{name}/stream"),
        ("get", "/v1/entity/{type}/{id}"),
        ("get", "/v1/stream/events"),
        ("get", "/v1/catalog"),
        ("get", "/v1/contracts"),
        ("get", "/v1/contracts/{name}"),
        ("post", "/v1/contracts/{name}/validate"),
        ("post", "/v1/contracts/{name}/diff"),
        ("get", "/v1/lineage/{kind}/{name}"),
        ("get", "/v1/deadletter"),
        ("get", "/v1/deadletter/stats"),
        ("get", "/v1/deadletter/{id}"),
        ("post", "/v1/deadletter/{id}/replay"),
        ("post", "/v1/deadletter/{id}/dismiss"),
        ("get", "/v1/health"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
        ("get", "/docs"),
        ("get", "/"),
    ] {
        assert!(paths.contains(&(method.to_owned(), path.to_owned())), "{method} {path} is not documented");
    }
    for (method, path) in &paths {
        let operation = &document["paths"][path][method];
        assert!(operation["summary"].is_string(), "{method} {path} has no summary");
        assert!(
            operation["responses"].as_object().is_some_and(|r| !r.is_empty()),
            "{method} {path} has no responses"
        );
        // Every documented route is one (a stream is left open, so it is not asked for here).
        if path.contains("stream") {
            continue;
        }
        let here = path.replace("{type}", "order").replace("{kind}", "metric").replace("{version}", "v1");
        let here =
            here.split('/').map(|s| if s.starts_with('{') { "x" } else { s }).collect::<Vec<_>>().join("/");
        let reply =
            if method == "get" { site.get(&here) } else { site.post(&here, "application/json", "{}") };
        assert!(reply.status != 405 && !reply.text.contains("no_route"), "{method} {here}: {}", reply.text);
    }
    // Every reference resolves.
    let text = document.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not a schema");
    }
}

#[test]
fn the_pages_are_self_contained() {
    let site = Site::start();
    for path in ["/", "/docs"] {
        let page = site.get(path);
        assert_eq!(page.status, 200);
        assert!(page.headers["content-type"].starts_with("text/html"));
        assert!(
            !page.text.contains("http://")
                || page.text.matches("http://").count() == page.text.matches("http://www.w3.org").count()
        );
        assert!(!page.text.contains("https://"));
        for part in page.text.split(['"', '\'']).filter(|p| p.starts_with("/assets/")) {
            assert_eq!(site.get(part).status, 200, "{part}");
        }
        assert!(
            !page.text.contains("<script>") && !page.text.contains("style=\""),
            "the CSP forbids inline code"
        );
    }
}
