//! Requests as bytes, for what no client library would send.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// Sends `bytes` to `url` (`http://host:port`) and reads until the other side
/// closes or is silent for five seconds.
///
/// # Panics
/// Where nobody listens.
#[must_use]
pub fn exchange(url: &str, bytes: &[u8]) -> String {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the gateway listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a time-out can be set");
    stream.write_all(bytes).expect("the gateway reads");
    let mut answer = Vec::new();
    // A silent connection ends as a time-out; what came until then counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request with those header lines, as they are, and a JSON body.
#[must_use]
pub fn post(path: &str, lines: &[&[u8]], body: &str) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for line in lines {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body.as_bytes());
    request
}
