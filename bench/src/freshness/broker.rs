//! A real Kafka for the benchmark.
//!
//! *In*: an address, or the script that starts one. *Out*: an address and a topic of its own. *Never*: a
//! broker left running that was started here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Options;
use crate::error::Error;

/// A broker.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    started: Option<Started>,
}

/// A broker that was started here; stopped when dropped.
#[derive(Debug)]
struct Started {
    script: PathBuf,
    folder: PathBuf,
}

impl Broker {
    /// Uses the given one or starts one.
    pub(crate) fn start(options: &Options, folder: &Path) -> Result<Self, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let topic = format!("streamgauge.bench.{now}.{}", std::process::id());
        if let Some(brokers) = &options.brokers {
            return Ok(Self { brokers: brokers.clone(), topic, started: None });
        }
        let started =
            Started { script: script(options.kafka_script.as_deref())?, folder: folder.join("kafka") };
        let output = started.call("start")?;
        let address = output.lines().find_map(|line| line.strip_prefix("bootstrap="));
        let brokers = address.map(str::to_owned);
        let brokers = brokers.ok_or_else(|| {
            Error::Unreachable(format!("{} did not say where the broker is", started.script.display()))
        })?;
        Ok(Self { brokers, topic, started: Some(started) })
    }

    /// The broker's process, if it was started here.
    pub(crate) fn pid(&self) -> Option<u32> {
        let path = self.started.as_ref()?.folder.join("pid");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

impl Started {
    fn call(&self, command: &str) -> Result<String, Error> {
        let output = Command::new(&self.script)
            .arg(command)
            .arg("--dir")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(Error::file("run", &self.script))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Unreachable(format!("Kafka could not be started: {}", words.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Err(error) = self.call("stop") {
            eprintln!("the broker in {} may still run: {error}", self.folder.display());
        }
    }
}

/// The script: as given, below the working folder or one above it, or where this was built.
fn script(given: Option<&Path>) -> Result<PathBuf, Error> {
    const NAME: &str = "scripts/kafka.sh";
    if let Some(path) = given {
        return match path.is_file() {
            true => Ok(path.to_path_buf()),
            false => Err(Error::Usage(format!("--kafka-script: there is no file {}", path.display()))),
        };
    }
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(NAME);
    let found = here.ancestors().map(|folder| folder.join(NAME)).chain([built]).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::Unreachable(format!(
            "there is no {NAME} here to start Kafka with: give --brokers or --kafka-script"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_found() {
        assert!(script(None).unwrap().is_file());
        assert!(matches!(script(Some(Path::new("/no/such"))), Err(Error::Usage(_))));
    }
}
