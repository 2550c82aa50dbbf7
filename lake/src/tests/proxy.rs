//! A proxy before a REST catalog that loses answers, or holds a request until later.
//!
//! *In*: HTTP/1.1 requests with a content length. *Out*: the catalog's answers, but for commits for which something else
//! is wanted. *Never*: a commit that is done twice by the proxy.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// What happens to the next commit of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// It is done, and the connection ends without an answer.
    Lose,
    /// It is done, and the answer is 502.
    Gateway,
    /// It does not reach the catalog.
    Drop,
    /// It does not reach the catalog before [`Proxy::release`].
    Hold,
}

#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) url: String,
    to: String,
    acts: Mutex<VecDeque<Act>>,
    held: Mutex<Option<Vec<u8>>>,
    pub(super) acted: AtomicU32,
}

impl Proxy {
    /// Before the catalog at `http://host:port`.
    pub(super) fn start(catalog: &str) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            to: catalog.trim_start_matches("http://").to_owned(),
            acts: Mutex::default(),
            held: Mutex::default(),
            acted: AtomicU32::new(0),
        });
        let all = Arc::clone(&proxy);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(|client| client.ok()) {
                let proxy = Arc::clone(&all);
                // An error is a client that has gone.
                std::thread::spawn(move || proxy.serve(client));
            }
        });
        proxy
    }

    pub(super) fn next(&self, acts: Vec<Act>) {
        *self.acts.lock() = acts.into();
    }

    /// The held commit arrives; the catalog's answer.
    pub(super) fn release(&self) -> String {
        let request = self.held.lock().take().expect("a commit is held");
        String::from_utf8_lossy(&self.forward(&request).unwrap()).into_owned()
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut client = client;
        let Some(request) = read(&mut reader)? else { return Ok(()) };
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let act = if is_commit(line) { self.acts.lock().pop_front() } else { None };
        if act.is_some() {
            self.acted.fetch_add(1, Ordering::Relaxed);
        }
        // The connection ends after each answer: so the catalog says where its answer ends.
        match act {
            Some(Act::Hold) => *self.held.lock() = Some(request),
            Some(Act::Drop) => {}
            Some(Act::Lose) => drop(self.forward(&request)?),
            Some(Act::Gateway) => {
                self.forward(&request)?;
                client.write_all(
                    b"HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                )?;
            }
            None => client.write_all(&self.forward(&request)?)?,
        }
        Ok(())
    }

    fn forward(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut catalog = TcpStream::connect(&self.to)?;
        catalog.write_all(request)?;
        let mut answer = Vec::new();
        catalog.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// `POST /v1/namespaces/n/tables/t HTTP/1.1`.
fn is_commit(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let path = line.strip_prefix("POST ").and_then(|rest| rest.split(' ').next());
    path.and_then(|path| path.split_once("/tables/")).is_some_and(|(_, table)| !table.contains('/'))
}

/// One request, with `connection: close`; `None`: there is none any more.
fn read(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            head.extend_from_slice(b"connection: close\r\n\r\n");
            break;
        }
        if !lower.starts_with("connection:") {
            head.extend_from_slice(line.as_bytes());
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    head.append(&mut body);
    Ok(Some(head))
}
