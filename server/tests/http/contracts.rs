//! /v1/contracts.

use serde_json::{Value, json};

use crate::site::{CONTRACTS, Site};

fn names(list: &Value) -> Vec<(String, String)> {
    let text = |c: &Value, key: &str| c[key].as_str().unwrap().to_owned();
    list["contracts"].as_array().unwrap().iter().map(|c| (text(c, "kind"), text(c, "name"))).collect()
}

#[test]
fn contracts_are_listed_and_shown_as_written() {
    let site = Site::start();
    let list = site.get("/v1/contracts").ok();
    let expected =
        [("event", "order.created"), ("entity", "order"), ("metric", "order_count"), ("metric", "revenue")];
    assert_eq!(names(&list), expected.map(|(k, n)| (k.to_owned(), n.to_owned())));
    assert_eq!(names(&site.get("/v1/contracts?kind=entity").ok()).len(), 1);

    let event = site.get("/v1/contracts/order.created").ok();
    assert_eq!(event["version"], "1.0.0");
    assert_eq!(event["key"], "order_id");
    let fields = event["fields"].as_array().unwrap();
    let status = fields.iter().find(|f| f["name"] == "status").unwrap();
    assert_eq!(status["enum"], json!(["pending", "shipped", "cancelled"]));
    assert_eq!(event["rules"][0]["name"], "not_huge");
    let entity = site.get("/v1/contracts/entity.order").ok();
    let yaml = entity["yaml"].as_str().unwrap();
    assert!(
        yaml.starts_with("# The live row of an order.\n") && yaml.ends_with("seen: { count: true }\n"),
        "{yaml}"
    );
    assert_eq!(entity["fields"][0]["name"], "order_id");
    let metric = site.get("/v1/contracts/revenue/v1").ok();
    assert_eq!((&metric["owner"]["team"], &metric["status"]), (&json!("shop"), &json!("active")));
    assert_eq!(metric["measures"][2]["ratio"], json!(["total", "orders"]));
    site.get("/v1/contracts/revenue/v2").problem(404, "unknown_version");
    site.get("/v1/contracts/revenu").problem(404, "unknown_contract");
}

#[test]
fn versions_that_have_run_can_be_read_and_compared() {
    let mut site = Site::start();
    let next = CONTRACTS
        .replace("version: 1.2.0", "version: 2.0.0")
        .replace("  average: { ratio: [total, orders], unit: RUB }\n", "");
    site.swap(&next, 2);
    let diff = site.get("/v1/contracts/revenue/diff/v1/2.0.0").ok();
    assert_eq!(
        (&diff["from_version"], &diff["to_version"], &diff["requires_version_bump"]),
        (&json!("1.2.0"), &json!("2.0.0"), &json!(false)),
        "{diff}"
    );
    let breaking = diff["breaking_changes"].as_array().unwrap();
    assert_eq!(breaking.len(), 1, "{diff}");
    assert_eq!(
        (&breaking[0]["path"], &breaking[0]["severity"]),
        (&json!("measures.average"), &json!("breaking"))
    );
    let back = site.get("/v1/contracts/revenue/diff/2/1.2").ok();
    assert_eq!((&back["breaking_changes"], &back["is_breaking"]), (&json!([]), &json!(false)), "{back}");
    assert!(!back["additive_changes"].as_array().unwrap().is_empty(), "{back}");

    let old = site.get("/v1/contracts/revenue/1").ok();
    assert_eq!((&old["version"], old["measures"].as_array().unwrap().len()), (&json!("1.2.0"), 4), "{old}");
    assert!(old["yaml"].as_str().unwrap().contains("average:") && old["released"].is_string(), "{old}");
    assert_eq!(site.get("/v1/contracts/revenue").ok()["version"], "2.0.0");
    let problem = site.get("/v1/contracts/revenue/diff/1/3").problem(404, "unknown_version");
    assert_eq!(problem["errors"][0]["allowed"], json!(["1.2.0", "2.0.0"]), "{problem}");
    site.get("/v1/contracts/revenu/diff/1/2").problem(404, "unknown_contract");
}

#[test]
fn a_candidate_is_checked_in_its_place() {
    let site = Site::start();
    let yaml = site.get("/v1/contracts/revenue").ok()["yaml"].as_str().unwrap().to_owned();
    let same = site.post("/v1/contracts/revenue/validate", "application/yaml", &yaml).ok();
    assert_eq!((&same["valid"], &same["errors"]), (&json!(true), &json!([])), "{same}");
    assert_eq!(same["requires_version_bump"], false, "{same}");

    let wrong = yaml.replace("agg: sum", "agg: summ");
    let answer = site.post("/v1/contracts/revenue/validate", "application/yaml", &wrong).ok();
    assert_eq!(answer["valid"], false);
    let error = &answer["errors"][0];
    assert_eq!(error["file"], "candidate");
    assert!(
        error["line"].as_u64().is_some_and(|l| l > 1) && error["text"].as_str().unwrap().contains("summ"),
        "{error}"
    );

    let other = site.get("/v1/contracts/order_count").ok()["yaml"].as_str().unwrap().to_owned();
    site.post("/v1/contracts/revenue/validate", "application/yaml", &other).problem(400, "other_contract");
    site.post("/v1/contracts/revenue/validate", "application/yaml", "").problem(400, "empty_body");
    site.post("/v1/contracts/nope/validate", "application/yaml", &yaml).problem(404, "unknown_contract");
}

#[test]
fn a_diff_says_what_breaks() {
    let site = Site::start();
    let yaml = site.get("/v1/contracts/revenue").ok()["yaml"].as_str().unwrap().to_owned();
    let removed = yaml.replace("  average: { ratio: [total, orders], unit: RUB }\n", "");
    let diff = site.post("/v1/contracts/revenue/diff", "application/yaml", &removed).ok();
    assert_eq!(diff["breaking_changes"].as_array().unwrap().len(), 1, "{diff}");
    assert_eq!(diff["is_breaking"], true);
    assert_eq!(diff["requires_version_bump"], true);
    let added =
        yaml.replace("measures:\n", "measures:\n  smallest: { agg: min, value: amount, hidden: true }\n");
    let diff = site.post("/v1/contracts/revenue/diff", "application/yaml", &added).ok();
    assert_eq!(
        (diff["breaking_changes"].as_array().unwrap().len(), &diff["is_breaking"]),
        (0, &json!(false)),
        "{diff}"
    );
    assert!(!diff["additive_changes"].as_array().unwrap().is_empty(), "{diff}");
    site.post("/v1/contracts/revenue/diff", "application/yaml", "kind: Metric")
        .problem(422, "invalid_contract");
}
