//! The HTTP client of the commands that talk to a running server.
//!
//! *In*: paths and query parameters. *Out*: JSON, or a [`Failure`] that says what the server said.
//! *Never*: an API of its own (only what `/openapi.json` shows), a write sent again that may have been taken.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;

use super::exit::{Exit, Failure};

/// How long events are sent again to a server that takes none for now.
const PATIENCE: Duration = Duration::from_secs(300);
/// A wait that is worth a word.
const LASTS: Duration = Duration::from_secs(5);

/// Where the server is.
#[derive(Debug, Clone, clap::Args)]
pub struct Server {
    /// Address of the running server.
    #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
}

/// A client for one server.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    /// A client; nothing is sent yet.
    pub fn new(server: &Server) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .proxy(None)
            .tls_config(tls())
            .user_agent(concat!("streamgauge/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let base = server.url.trim_end_matches('/').to_owned();
        let base = if base.contains("://") { base } else { format!("http://{base}") };
        Self { agent, base }
    }

    /// The server's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Reads JSON.
    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = query.iter().fold(request, |request, (name, value)| request.query(*name, value));
        let response = request.call().map_err(|error| self.unreachable(&error))?;
        self.answer(response)
    }

    /// Reads JSON that may come with the status of an error (`/readyz` while the server catches up).
    pub fn get_any(&self, path: &str) -> Result<Value, Failure> {
        let text = self.text(path)?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::new(Exit::Failed, format!("{} did not answer with JSON: {error}", self.base))
                .help("is this a Streamgauge server?")
        })
    }

    /// Reads text, whatever the status.
    pub fn text(&self, path: &str) -> Result<String, Failure> {
        let response = self.agent.get(format!("{}{path}", self.base)).call();
        let mut response = response.map_err(|error| self.unreachable(&error))?;
        response.body_mut().read_to_string().map_err(|error| self.unreachable(&error))
    }

    /// Asks for something to be done; sent once.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        let response = request.send(body.to_string()).map_err(|error| self.unreachable(&error))?;
        self.answer(response)
    }

    /// Sends events. A 503 means that nothing was stored: it is sent again, when the server says, for [`PATIENCE`].
    pub fn push(&self, query: &[(&str, String)], mime: &str, body: &[u8]) -> Result<Value, Failure> {
        let mut waited = Duration::ZERO;
        loop {
            let request = self.agent.post(format!("{}/v1/events", self.base)).content_type(mime);
            let request = query.iter().fold(request, |request, (name, value)| request.query(*name, value));
            let response = request.send(body).map_err(|error| self.unreachable(&error))?;
            if response.status().as_u16() != 503 || waited >= PATIENCE {
                return self.answer(response);
            }
            let pause = retry_after(response.headers().get("retry-after").and_then(|v| v.to_str().ok()));
            // Why is said once, when it lasts.
            if waited < LASTS
                && waited + pause >= LASTS
                && let Err(why) = self.answer(response)
            {
                eprintln!("waiting: {}", why.message);
            }
            // Waiting is what the server asks for.
            std::thread::sleep(pause);
            waited += pause;
        }
    }

    /// Opens a stream of server-sent events.
    pub fn stream(&self, path: &str, query: &[(&str, String)]) -> Result<impl Read + 'static, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base)).header("accept", "text/event-stream");
        let request = query.iter().fold(request, |request, (name, value)| request.query(*name, value));
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let body = response.body_mut().read_to_string().unwrap_or_default();
            return Err(problem(status, &body));
        }
        Ok(response.into_body().into_reader())
    }

    fn answer(&self, mut response: ureq::http::Response<ureq::Body>) -> Result<Value, Failure> {
        const MOST: u64 = 256 << 20;
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(MOST)
            .read_to_string()
            .map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(problem(status.as_u16(), &body));
        }
        serde_json::from_str(&body).map_err(|error| {
            Failure::new(Exit::Failed, format!("{} did not answer with JSON: {error}", self.base))
                .help("is this a Streamgauge server?")
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let failure = Failure::new(Exit::Unreachable, format!("no answer from {}: {error}", self.base));
        match error {
            ureq::Error::BadUri(_) => {
                Failure::new(Exit::Usage, format!("`{}` is not an address: {error}", self.base))
            }
            _ => failure.help("start one with `streamgauge serve`, or name it with --url or STREAMGAUGE_URL"),
        }
    }
}

/// Seconds of `Retry-After`, at most half a minute; one where the server does not say.
fn retry_after(header: Option<&str>) -> Duration {
    let seconds = header.and_then(|text| text.trim().parse().ok()).unwrap_or(1);
    Duration::from_secs(u64::clamp(seconds, 1, 30))
}

/// The system's TLS: a server behind a proxy that speaks https can be asked, too.
fn tls() -> ureq::tls::TlsConfig {
    ureq::tls::TlsConfig::builder()
        .provider(ureq::tls::TlsProvider::NativeTls)
        .root_certs(ureq::tls::RootCerts::PlatformVerifier)
        .build()
}

/// What an error answer says, in one message.
fn problem(status: u16, body: &str) -> Failure {
    let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let message = match (text("detail").or_else(|| text("title")), text("code")) {
        (Some(detail), Some(code)) => format!("{detail} ({status} {code})"),
        (Some(detail), None) => format!("{detail} ({status})"),
        _ => format!("the server answered {status}"),
    };
    let exit = if status == 503 { Exit::Unreachable } else { Exit::Failed };
    let mut failure = Failure::new(exit, message);
    let errors: Vec<String> = json
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|e| e.get("message").and_then(Value::as_str).map_or_else(|| e.to_string(), str::to_owned))
        .filter(|message| !failure.message.contains(message.as_str()))
        .collect();
    if !errors.is_empty() {
        failure.help = Some(errors.join("\n  "));
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_one_message() {
        let failure = problem(
            404,
            r#"{"title":"Not Found","detail":"no metric `x`","code":"unknown_metric","errors":[]}"#,
        );
        assert_eq!(failure.message, "no metric `x` (404 unknown_metric)");
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(problem(502, "<html>").message, "the server answered 502");
    }

    #[test]
    fn a_server_says_when_to_try_again() {
        let seconds = |header| retry_after(header).as_secs();
        assert_eq!((seconds(Some("5")), seconds(Some("0")), seconds(Some("3600"))), (5, 1, 30));
        assert_eq!((seconds(Some("Wed, 21 Oct 2026 07:28:00 GMT")), seconds(None)), (1, 1));
    }

    #[test]
    fn nobody_listens() {
        let client = Client::new(&Server { url: "127.0.0.1:1".into() });
        let failure = client.get("/v1/metrics", &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
    }
}
