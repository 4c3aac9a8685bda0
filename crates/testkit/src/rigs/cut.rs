//! A connection that breaks in the middle of an upload: a proxy that passes everything on, but for the first
//! large PUT, of which the server gets a part before both sides are cut off.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A request that was passed on.
#[derive(Debug, Clone)]
pub struct Passed {
    /// `PUT`, …
    pub method: String,
    /// With its query.
    pub target: String,
    /// Of the body, as announced.
    pub length: u64,
    /// `Content-Range`, if there was one.
    pub range: Option<String>,
}

/// The proxy; it lives as long as the test's process.
pub struct Cut {
    address: String,
    log: Arc<Mutex<Vec<Passed>>>,
}

impl Cut {
    /// Stands before `server` (`127.0.0.1:PORT`). The first PUT of more than `bytes` bytes ends after so many.
    pub fn before(server: &str, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen");
        let address = listener.local_addr().expect("it listens").to_string();
        let log: Arc<Mutex<Vec<Passed>>> = Arc::default();
        let is_cut = Arc::new(AtomicBool::new(false));
        let (server, kept) = (server.to_owned(), Arc::clone(&log));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, log, is_cut) =
                    (server.clone(), Arc::clone(&kept), Arc::clone(&is_cut));
                // A client that went away is no fault of the test.
                std::thread::spawn(move || pass(client, &server, bytes, &is_cut, &log).ok());
            }
        });
        Self { address, log }
    }

    /// `127.0.0.1:PORT`, as image names begin.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What was passed on so far.
    pub fn passed(&self) -> Vec<Passed> {
        let log = self.log.lock();
        log.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request, one answer, and the connection is closed.
fn pass(
    mut client: TcpStream,
    server: &str,
    bytes: u64,
    is_cut: &AtomicBool,
    log: &Mutex<Vec<Passed>>,
) -> std::io::Result<()> {
    let mut request = BufReader::new(client.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        request.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let Some(first) = head.first() else {
        return Ok(());
    };
    let mut words = first.split(' ').map(str::to_owned);
    let header = |name: &str| {
        let mut found = head.iter().filter_map(|line| line.split_once(':'));
        let found = found.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let passed = Passed {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        length: header("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        range: header("content-range"),
    };
    let is_large = passed.method == "PUT" && passed.length > bytes;
    let cut_here = is_large && !is_cut.swap(true, Ordering::SeqCst);
    let length = if cut_here { bytes } else { passed.length };
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(passed);
    let mut upstream = TcpStream::connect(server)?;
    for line in head
        .iter()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
    {
        write!(upstream, "{line}\r\n")?;
    }
    write!(upstream, "Connection: close\r\n\r\n")?;
    std::io::copy(&mut request.take(length), &mut upstream)?;
    if cut_here {
        upstream.shutdown(Shutdown::Both)?;
        return client.shutdown(Shutdown::Both);
    }
    std::io::copy(&mut upstream, &mut client)?;
    client.shutdown(Shutdown::Both)
}
