//! The same scenarios in PostgreSQL, in Apache Iceberg's REST catalog, and in an S3 store, all of them running programs.
//!
//! `scripts/catalogs.sh` runs them; the scenarios run in a process of their own, because an S3 client takes its settings
//! from the environment. With components of your own: set the variables below and `cargo test -p lake -- --ignored`.

use std::process::Command;

use super::proxy::{Act, Proxy};
use super::scenarios::holds;
use super::*;

/// Stops what was started, whatever happens.
struct Components(tempfile::TempDir);

fn script(command: &str, dir: &std::path::Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/catalogs.sh");
    let run = Command::new(script).arg(command).arg("--dir").arg(dir).output().expect("the script runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

impl Drop for Components {
    fn drop(&mut self) {
        script("clean", self.0.path());
    }
}

#[test]
fn real_catalogs_and_stores() {
    let components = Components(tempfile::tempdir().unwrap());
    let said = script("start", components.0.path());
    let of = |name: &str| {
        let found = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no `{name}` in {said}")).to_owned()
    };
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["tests::real::in_", "--ignored", "--nocapture", "--test-threads=1"])
        .env("LAKE_POSTGRES", of("postgres"))
        .env("LAKE_REST", of("rest"))
        .env("LAKE_FOLDER", of("warehouse"))
        .env("LAKE_BUCKET", format!("s3://{}/prefix", of("bucket")))
        .env("AWS_ENDPOINT_URL", of("s3"))
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")])
        .env("AWS_ALLOW_HTTP", "true")
        .status();
    assert!(run.expect("the tests run").success());
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: see lake/src/tests/real.rs"))
}

fn rest(uri: String) -> CatalogKind {
    CatalogKind::Rest { uri, warehouse: None, properties: Vec::new() }
}

#[tokio::test]
#[ignore = "run by real_catalogs_and_stores"]
async fn in_postgres() {
    all(&Home::new(Some((CatalogKind::Postgres(variable("LAKE_POSTGRES")), variable("LAKE_FOLDER"))))).await;
}

#[tokio::test]
#[ignore = "run by real_catalogs_and_stores"]
async fn in_rest() {
    all(&Home::new(Some((rest(variable("LAKE_REST")), variable("LAKE_FOLDER"))))).await;
}

#[tokio::test]
#[ignore = "run by real_catalogs_and_stores"]
async fn in_s3() {
    all(&Home::new(Some((rest(variable("LAKE_REST")), variable("LAKE_BUCKET"))))).await;
}

/// Answers are lost, are errors although the commit is done, or never come because it is not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by real_catalogs_and_stores"]
async fn in_rest_behind_a_proxy_that_loses_answers() {
    let proxy = Proxy::start(&variable("LAKE_REST"));
    let config = Home::new(Some((rest(proxy.url.clone()), variable("LAKE_FOLDER")))).fresh();
    let contracts = contracts(CONTRACT);
    let mut lake = Lake::open(config.clone(), &contracts).await.unwrap();
    for n in 0..times(20) {
        proxy.next(
            [Act::Lose, Act::Gateway, Act::Drop].into_iter().cycle().skip(n as usize % 3).take(2).collect(),
        );
        lake.feed(&contracts, tick(&contracts, 0, n * 20, n * 20 + 20));
        let mut tries = 0;
        while let Err(error) = lake.round().await {
            assert!(error.is_passing(), "{error}");
            tries += 1;
            assert!(tries < 5, "{error}");
        }
        // Sometimes the process is another one from here on.
        if n % 7 == 6 {
            lake = Lake::open(config.clone(), &contracts).await.unwrap();
        }
    }
    holds(&lake, &[(0, times(20) * 20)]).await;
    assert!(i64::from(proxy.acted.load(Ordering::Relaxed)) >= times(40));
}

/// A request that was on the way when its sender died arrives after the next one has begun.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by real_catalogs_and_stores"]
async fn in_rest_behind_a_proxy_that_holds_a_request() {
    let proxy = Proxy::start(&variable("LAKE_REST"));
    let home = Home::new(Some((rest(proxy.url.clone()), variable("LAKE_FOLDER"))));
    let contracts = contracts(CONTRACT);
    for n in 0..times(6) {
        let config = home.fresh();
        let mut first = Lake::open(config.clone(), &contracts).await.unwrap();
        first.feed(&contracts, tick(&contracts, 0, 0, 10));
        first.round().await.unwrap();
        proxy.next(vec![Act::Hold]);
        first.feed(&contracts, tick(&contracts, 0, 10, 20));
        first.round().await.unwrap_err();
        drop(first);
        let lands_first = n % 2 == 0;
        if lands_first {
            assert!(proxy.release().starts_with("HTTP/1.1 200"));
        }
        let mut second = Lake::open(config, &contracts).await.unwrap();
        if !lands_first {
            assert!(proxy.release().starts_with("HTTP/1.1 409"), "it would be there twice");
        }
        second.feed(&contracts, tick(&contracts, 0, 0, 30));
        second.round().await.unwrap();
        holds(&second, &[(0, 30)]).await;
    }
}
