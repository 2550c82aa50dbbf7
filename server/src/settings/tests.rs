use std::collections::BTreeSet;

use super::*;

fn load_in(folder: &Path, text: &str, variables: &[(&str, &str)]) -> Loaded {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load_text("streamgauge.yaml", text, folder, variables)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("contracts")).unwrap();
    folder
}

const HEAD: &str = "apiVersion: streamgauge/v1\nkind: Settings\n";

const FULL: &str = r#"apiVersion: streamgauge/v1
kind: Settings
contracts: [contracts/, pack:commerce]
data: data/
workers: 2
server: { listen: 127.0.0.1:8080 }
sources:
  - { name: orders, kafka: { brokers: localhost:9092, topics: [orders.raw], group: streamgauge, start: earliest, properties: { a: b } }, registry: { url: "http://localhost:8081" }, format: json, envelope: { id: event_id, type: event_type, time: timestamp, tenant: t } }
  - { name: push, http: {}, format: json, envelope: { id: event_id, type: event_type, time: timestamp } }
  - { name: history, file: { path: old.ndjson } }
  - { name: github, hook: { kind: github, verify: none } }
lake: { catalog: sqlite, warehouse: data/lake, commit_every: 10s }
auth: { mode: open }
limits: { body: 1MiB, keys_per_metric: 1_000_000, memory: 1GiB }
"#;

#[test]
fn the_whole_of_the_interface_page_is_accepted() {
    let folder = folder();
    let loaded = load_in(folder.path(), FULL, &[]);
    assert!(loaded.mistakes.is_empty(), "{:#?}", loaded.mistakes);
    let settings = loaded.settings.unwrap();
    assert_eq!(settings.workers, 2);
    assert_eq!(settings.sources.len(), 4);
    assert_eq!(settings.limits.keys_per_metric, 1_000_000);
    assert_eq!(settings.data, folder.path().join("data/"));
    let lake = settings.lake.config(&settings.data).unwrap();
    assert_eq!(lake.commit_every, std::time::Duration::from_secs(10));
    assert_eq!(lake.warehouse, folder.path().join("data/lake").display().to_string());
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
}

#[test]
fn catalogs_of_the_lake() {
    use ::lake::CatalogKind;
    let folder = folder();
    let data = std::path::Path::new("d");
    let config = |lake: &str| {
        let text = format!("{HEAD}lake: {{ {lake} }}");
        let loaded = load_in(folder.path(), &text, &[]);
        assert!(loaded.mistakes.is_empty(), "{:#?}", loaded.mistakes);
        let settings = loaded.settings.unwrap();
        assert!(!format!("{settings:?} {:?}", loaded.effective).contains("h/nter2"));
        settings.lake.config(data)
    };
    assert!(config("catalog: none").is_none());
    let sqlite = config("buckets: 1").unwrap();
    assert_eq!(sqlite.catalog, CatalogKind::Sqlite("d/lake/catalog.db".into()));
    assert_eq!((sqlite.warehouse.as_str(), sqlite.buckets), ("d/lake", 1));
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "h/nter2\n").unwrap();
    let secret = format!("{{ file: {} }}", secret.display());
    let postgres =
        format!("catalog: postgres, uri: postgres://me@db/lake, password: {secret}, warehouse: s3://b/p");
    let postgres = config(&postgres).unwrap();
    assert_eq!(postgres.catalog, CatalogKind::Postgres("postgres://me:h%2Fnter2@db/lake".into()));
    assert_eq!(postgres.warehouse, "s3://b/p");
    let rest = format!("catalog: rest, uri: https://c, properties: {{ warehouse: w, credential: {secret} }}");
    let CatalogKind::Rest { uri, warehouse, properties } = config(&rest).unwrap().catalog else {
        panic!("rest")
    };
    assert_eq!((uri.as_str(), warehouse.as_deref()), ("https://c", Some("w")));
    assert_eq!(properties, [("credential".to_owned(), "h/nter2".to_owned())]);
    for (wrong, code) in
        [("catalog: rest", "missing"), ("catalog: duck", "not_allowed"), ("namespace: A-b", "not_allowed")]
    {
        let loaded = load_in(folder.path(), &format!("{HEAD}lake: {{ {wrong} }}"), &[]);
        assert_eq!(loaded.mistakes[0].code, code, "{wrong}");
    }
}

#[test]
fn nothing_written_means_defaults_and_a_push_source() {
    let folder = folder();
    let loaded = load_in(folder.path(), HEAD, &[]);
    let settings = loaded.settings.unwrap();
    assert_eq!(settings.sources[0].name, "push");
    assert_eq!(settings.sources[0].envelope, Envelope::default());
    assert!(loaded.effective.iter().any(|e| e.setting == "server.listen" && e.origin == "default"));
}

#[test]
fn the_environment_wins_and_is_named() {
    let folder = folder();
    let loaded = load_in(
        folder.path(),
        FULL,
        &[
            ("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:9000"),
            ("STREAMGAUGE_SOURCES__ORDERS__KAFKA__BROKERS", "k:1"),
        ],
    );
    let settings = loaded.settings.unwrap();
    assert_eq!(settings.server.listen.port(), 9000);
    let listen = loaded.effective.iter().find(|e| e.setting == "server.listen").unwrap();
    assert_eq!(listen.origin, "environment STREAMGAUGE_SERVER__LISTEN");
    let brokers = loaded.effective.iter().find(|e| e.setting == "sources.orders.kafka.brokers").unwrap();
    assert_eq!(brokers.value, "k:1");
}

#[test]
fn all_mistakes_in_one_run() {
    let folder = folder();
    let text = "apiVersion: streamgauge/v1
kind: Settings
contracts: [contracts/, nowhere/, pack:comerce]
workers: many
servr: { listen: x }
server: { listen: 0.0.0.0:80, lisen: 1 }
sources:
  - { name: a, kafka: { topics: [t], properties: { sasl.password: hunter2 } } }
  - { name: b, http: {}, format: debezium, debezium: { times: seconds } }
  - { name: b, http: {}, format: jsn }
  - { http: {} }
limits: { body: much }
";
    let loaded = load_in(folder.path(), text, &[]);
    assert!(loaded.settings.is_none());
    let shown = contracts::diagnostic::render(&loaded.mistakes);
    for line in [
        "streamgauge.yaml:3:25: error[no_such_path]",
        "streamgauge.yaml:3:35: error[unknown_pack]",
        "did you mean: commerce",
        "streamgauge.yaml:4:10: error[not_allowed]",
        "streamgauge.yaml:5:1: error[unknown_setting]",
        "did you mean: server",
        "streamgauge.yaml:6:31: error[unknown_setting]",
        "streamgauge.yaml:6:19: error[open_on_network]",
        "error[secret_in_file]",
        "`kafka` needs `brokers`",
        "`sources.b.debezium.times` cannot be `seconds`",
        "did you mean: json",
        "a source needs a `name`",
        "two sources are named `b`",
        "`limits.body` is `much`",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(!shown.contains("hunter2"));
}

#[test]
fn secrets_come_from_a_file_and_stay_hidden() {
    let folder = folder();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let text = format!(
        "{HEAD}sources: [{{ name: a, kafka: {{ brokers: b, topics: t, properties: {{ sasl.password: {{ file: {} }} }} }} }}]",
        secret.display()
    );
    let loaded = load_in(folder.path(), &text, &[]);
    let settings = loaded.settings.unwrap();
    let Transport::Kafka(kafka) = &settings.sources[0].transport else { panic!("kafka") };
    assert_eq!(kafka.properties["sasl.password"].reveal(), "hunter2");
    assert!(!format!("{:?} {:?}", settings, loaded.effective).contains("hunter2"));
}

#[test]
fn other_auth_modes_do_not_start() {
    let folder = folder();
    let loaded = load_in(folder.path(), &format!("{HEAD}auth: {{ mode: keys }}"), &[]);
    assert_eq!(loaded.mistakes[0].code, "not_yet");
}

#[test]
fn every_setting_that_is_read_is_in_the_table_and_back() {
    let folder = folder();
    let loaded = load_in(folder.path(), FULL, &[]);
    let generic = |path: &str| {
        let path = path.replace("sources.orders.", "sources[].").replace("sources.history.", "sources[].");
        let path = path.replace("sources.github.", "sources[].");
        let path =
            path.replace("sources.push.http.listen", "sources[].http").replace("sources.push.", "sources[].");
        path.replace("properties.a", "properties")
    };
    let mut read: BTreeSet<String> = loaded.effective.iter().map(|e| generic(&e.setting)).collect();
    for silent in ["apiVersion", "kind", "checkpoints.place"] {
        read.insert(silent.into());
    }
    for silent in ["name", "accept_loss", "envelope.tenant", "envelope.op"] {
        read.insert(format!("sources[].{silent}"));
    }
    for silent in ["user", "password"] {
        read.insert(format!("sources[].registry.{silent}"));
    }
    for silent in ["adapter", "secret_env", "secret_file"] {
        read.insert(format!("sources[].hook.{silent}"));
    }
    for silent in ["uri", "password", "properties"] {
        read.insert(format!("lake.{silent}"));
    }
    let listed: BTreeSet<String> = keys::KEYS.iter().map(|k| k.path.to_owned()).collect();
    assert_eq!(read, listed);
}

#[test]
fn change_streams_and_registries() {
    use connectors::decode::{Decimals, Unit};
    let folder = folder();
    let text = format!(
        "{HEAD}sources:
  - {{ name: shop, kafka: {{ brokers: b, topics: 'shop.public.*' }}, format: debezium, debezium: {{ decimals: string, times: millis }} }}
  - {{ name: plain, kafka: {{ brokers: b, topics: t }}, type: cdc.stock, envelope: {{ op: meta.op }} }}
  - {{ name: avro, kafka: {{ brokers: b, topics: a }}, format: avro, registry: {{ url: 'https://r:8085', user: me, password: {{ env: REGISTRY }} }} }}
"
    );
    let text = text.replace("env: REGISTRY", "file: password");
    std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    let text = text.replace("file: password", &format!("file: {}", folder.path().join("password").display()));
    let loaded = load_in(folder.path(), &text, &[]);
    assert!(loaded.mistakes.is_empty(), "{:#?}", loaded.mistakes);
    let settings = loaded.settings.unwrap();
    let [shop, plain, avro, ..] = settings.sources.as_slice() else { panic!("three sources") };
    assert_eq!(
        (shop.format, shop.stream.debezium.decimals),
        (source::Format::Debezium, Some(Decimals::String))
    );
    assert_eq!(shop.stream.debezium.times, Some(Unit::Millis));
    assert_eq!(plain.stream.event_type.as_deref(), Some("cdc.stock"));
    assert_eq!(plain.envelope.op.as_deref(), Some("meta.op"));
    let registry = avro.stream.registry.as_ref().unwrap();
    assert_eq!((registry.url.as_str(), registry.login.as_deref()), ("https://r:8085", Some("me:hunter2")));
    assert!(!format!("{settings:?} {:?}", loaded.effective).contains("hunter2"));

    let text = format!(
        "{HEAD}sources:
  - {{ name: a, kafka: {{ brokers: b, topics: a }}, format: avro }}
  - {{ name: b, kafka: {{ brokers: b, topics: a }}, format: protobuf, registry: {{ url: localhost }} }}
  - {{ name: c, http: {{}}, registry: {{ url: 'http://r' }} }}
  - {{ name: d, kafka: {{ brokers: b, topics: a }}, registry: {{ user: u }} }}
"
    );
    let shown = contracts::diagnostic::render(&load_in(folder.path(), &text, &[]).mistakes);
    for line in [
        "the source names none",
        "`sources.b.registry.url` is `localhost`, but the address of a schema registry is needed",
        "only a Kafka source has a `registry`",
        "`registry` needs a `url`",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}
