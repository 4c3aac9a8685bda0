//! Credentials: Bearer, or Basic whose password is the token (netrc, docker login).

use firn_services::budget::Client;
use firn_services::{Access, Identity};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::net::{IpAddr, Ipv4Addr};

/// The token a request brings. Malformed credentials are an empty token, which nobody has.
pub(crate) fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?;
    Some(firn_formats::http::token(
        value.to_str().unwrap_or_default(),
    ))
}

/// Who a request comes from.
pub(crate) fn identify(access: &Access, headers: &HeaderMap) -> Identity {
    if !headers.contains_key(AUTHORIZATION) {
        return Identity::Anonymous;
    }
    access.identify(token(headers).as_deref())
}

/// Where a request comes from, as connections are counted.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// For whom something is held: tokens for the same caches count together, and so do strangers of one address.
pub(crate) fn client(who: &Identity, peer: Peer) -> Client {
    match who {
        Identity::Token(claims) => Client::known(&claims.caches.join(",")),
        Identity::Anonymous | Identity::Refused(_) => Client::Stranger(peer.0),
    }
}

/// Where a request comes from. The listener says it of each; one without is as all others without.
pub(crate) fn peer(extensions: &http::Extensions) -> Peer {
    let found = extensions.get::<Peer>().copied();
    found.unwrap_or(Peer(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}
