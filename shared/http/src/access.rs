//! Who may call.

use axum::http::{HeaderMap, HeaderName, Uri, header, uri::Authority};
use sheaf_api::{ApiError, Code};

use crate::Token;

/// Who may call. A program proves itself with the token; a page in a browser, besides, by having come from this server:
/// under a host name that is ours (so that no foreign name can be made to resolve to this machine: DNS rebinding), and
/// without a foreign origin.
#[derive(Debug, Clone)]
pub enum Access {
    /// Holders of the token, under a loopback name: `localhost`, `127.0.0.1` or `[::1]`, at any port.
    Token(Token),
    /// Holders of the token, under a loopback name or one of these host names, at any port.
    TokenAt {
        /// The token.
        token: Token,
        /// Host names without ports, in any case.
        hosts: Vec<String>,
    },
    /// Everybody whose request arrives. Only where something in front lets in none but those who have proved themselves, and
    /// where nothing else reaches the router: behind an HTTP API of API Gateway that asks for signatures (SigV4), there is no
    /// token, and the host name is Amazon's. On a socket this opens the grid to whoever can connect.
    Authenticated,
}

impl Access {
    /// Lets a request in or says why not. An `is_open` route wants no token.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap, is_open: bool) -> Result<(), ApiError> {
        let (token, hosts) = match self {
            Self::Token(token) => (token, &[][..]),
            Self::TokenAt { token, hosts } => (token, hosts.as_slice()),
            Self::Authenticated => return Ok(()),
        };
        let host = named_host(uri, headers)?;
        if !is_ours(&host, hosts) {
            let message = format!("this grid does not answer as {:?}", host.host());
            return Err(ApiError::new(Code::Forbidden, message)
                .with_hint("call it as localhost or 127.0.0.1, or allow this host name where it is started"));
        }
        check_origin(headers, &host)?;
        if is_open { Ok(()) } else { check_token(headers, token) }
    }
}

/// The host that a request names: in its target, or else in its `Host` header; never two different ones.
fn named_host(uri: &Uri, headers: &HeaderMap) -> Result<Authority, ApiError> {
    let forbidden = |message| ApiError::new(Code::Forbidden, message);
    let text = only(headers, header::HOST)?;
    let header = text.map(str::parse::<Authority>).transpose().map_err(|_| forbidden("the Host header is not one"))?;
    let host = match (uri.authority(), header) {
        (Some(target), Some(header)) if *target != header => {
            return Err(forbidden("the request names two hosts"));
        }
        (Some(host), _) => host.clone(),
        (None, Some(host)) => host,
        (None, None) => return Err(forbidden("the request has no Host header")),
    };
    if host.as_str().contains('@') { Err(forbidden("the Host header is not one")) } else { Ok(host) }
}

fn is_ours(host: &Authority, hosts: &[String]) -> bool {
    let name = host.host();
    matches!(name, "127.0.0.1" | "[::1]")
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// Browsers send the origin of the page that a request comes from.
fn check_origin(headers: &HeaderMap, host: &Authority) -> Result<(), ApiError> {
    let Some(origin) = only(headers, header::ORIGIN)? else { return Ok(()) };
    let authority = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
    if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str())) {
        return Ok(());
    }
    Err(ApiError::new(Code::Forbidden, "the request comes from a page of another origin"))
}

fn check_token(headers: &HeaderMap, token: &Token) -> Result<(), ApiError> {
    let refuse = |message: &str| {
        ApiError::new(Code::Unauthorized, message)
            .with_hint("send the header Authorization: Bearer and the token that the grid wrote when it was started")
    };
    let given = only(headers, header::AUTHORIZATION)?.ok_or_else(|| refuse("the request has no token"))?;
    let (scheme, given) = given.split_once(' ').unwrap_or((given, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refuse("the Authorization header is not a bearer token"));
    }
    if token.is(given.trim()) { Ok(()) } else { Err(refuse("the token is not that of this grid")) }
}

/// The text of a header that may stand once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    match (first.map(|value| value.to_str()).transpose(), second) {
        (Ok(text), None) => Ok(text),
        (_, Some(_)) => Err(ApiError::new(Code::Forbidden, format!("the header {name} stands twice"))),
        (Err(_), None) => Err(ApiError::new(Code::Forbidden, format!("the header {name} is not plain text"))),
    }
}
