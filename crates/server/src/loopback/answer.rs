//! From a door's answer to HTTP.

use super::{LoopbackAnswer, LoopbackDoor};
use crate::app::{bare, blocking, respond, text};
use crate::body::{Body, BodyError, MadeBody};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use std::convert::Infallible;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Bytes of a block of a body.
const BLOCK_BYTES: u64 = 128 << 10;

/// One request. `here` is the address of the listener.
pub(super) async fn handle(
    door: Arc<dyn LoopbackDoor>,
    here: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if here.ip().is_loopback() && !names_loopback(&request) {
        let why = "this is the machine's own cache: it is asked for by a loopback address";
        return Ok(text(StatusCode::MISDIRECTED_REQUEST, why));
    }
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return Ok(response);
        }
    };
    let path = request.uri().path().to_owned();
    let asked = path.clone();
    let response = match blocking(move || door.get(&asked)).await {
        Ok(answer) => respond_with(answer, head),
        Err(failed) => text(StatusCode::INTERNAL_SERVER_ERROR, failed),
    };
    let status = response.status().as_u16();
    tracing::debug!(%path, status, "answered");
    Ok(response)
}

/// Whether the request is for a loopback address. A web page whose name leads here, and whose browser therefore lets
/// it read the answer, has another host in it.
fn names_loopback(request: &Request<Incoming>) -> bool {
    let given = request
        .uri()
        .authority()
        .map(Authority::as_str)
        .or_else(|| {
            let host = request.headers().get(HOST)?;
            host.to_str().ok()
        });
    let Some(authority) = given.and_then(|given| given.parse::<Authority>().ok()) else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn respond_with(answer: LoopbackAnswer, head: bool) -> Response<Body> {
    match answer {
        LoopbackAnswer::NotFound => text(StatusCode::NOT_FOUND, "not found"),
        LoopbackAnswer::Failed(why) => text(StatusCode::BAD_GATEWAY, why),
        LoopbackAnswer::Bytes { media_type, bytes } => {
            respond(StatusCode::OK, HeaderValue::from_static(media_type), bytes)
        }
        LoopbackAnswer::Stream {
            media_type,
            length,
            reader,
        } => {
            let mut response = match head || length == 0 {
                true => bare(StatusCode::OK),
                false => Response::new(stream(length, reader)),
            };
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            response
        }
    }
}

/// A body of exactly `length` bytes; a reader with fewer, or with a fault, breaks it off.
fn stream(length: u64, mut reader: Box<dyn Read + Send>) -> Body {
    let mut rest = length;
    Body::Made(MadeBody::new(Some(length), Counter::default(), move || {
        if rest == 0 {
            return Ok(None);
        }
        let block = read_block(&mut reader, rest.min(BLOCK_BYTES))?;
        rest -= block.len() as u64;
        Ok(Some(block))
    }))
}

/// As many bytes as are asked for.
fn read_block(reader: &mut dyn Read, length: u64) -> Result<Bytes, BodyError> {
    let mut block = Vec::with_capacity(length as usize);
    match reader.take(length).read_to_end(&mut block) {
        Ok(read) if read as u64 == length => Ok(block.into()),
        Ok(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Err(error) => Err(error.into()),
    }
}
