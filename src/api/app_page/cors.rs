//! Which pages may ask: CORS (Fetch standard §3.2), and the check of `Origin` that decides.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::problem::Problem;
use crate::listen::one_header;
use crate::payment::AppOrigin;

const METHODS: &str = "GET, POST, PATCH, DELETE";
const HEADERS: [&str; 3] = ["authorization", "content-type", "if-match"];
const EXPOSED: &str = "Location, ETag, Retry-After";
/// For so many seconds a browser need not ask again.
const MAX_AGE_S: &str = "600";
/// `Sec-Fetch-Site` (Fetch Metadata §2.2): no page can set it.
const FETCH_SITE: &str = "sec-fetch-site";

fn refused() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "origin", "this token is for pages of another origin")
}

/// Answers a preflight. It carries no token, so that it can't say whose page may ask: every origin that a session could be bound to is told which
/// methods and headers there are, and the request itself is decided by its token. Were bound origins alone let through, anybody could find out which
/// shops use the service.
pub(super) fn preflight(headers: &HeaderMap) -> Response {
    let origin = one_header(headers, "origin").filter(|o| AppOrigin::parse(o).is_ok_and(|read| read.as_str() == *o));
    let method = one_header(headers, "access-control-request-method").is_some_and(|m| METHODS.split(", ").any(|ours| ours == m));
    let asked = one_header(headers, "access-control-request-headers").unwrap_or("");
    let known = asked
        .split(',')
        .map(str::trim)
        .filter(|h| !h.is_empty())
        .all(|h| HEADERS.iter().any(|ours| h.eq_ignore_ascii_case(ours)));
    let Some(origin) = origin.filter(|_| method && known).and_then(|o| HeaderValue::from_str(o).ok()) else {
        let mut response = refused().into_response();
        vary(&mut response);
        return response;
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    vary(&mut response);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    if let Ok(ours) = HeaderValue::from_str(&HEADERS.join(", ")) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ours);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    response
}

/// Whether a request is from a page of the bound origin. A browser sends no `Origin` with a GET within one origin: then `Sec-Fetch-Site` says so, or,
/// where a browser has none, the host that was asked is the bound one.
pub(super) fn check(method: &Method, headers: &HeaderMap, bound: &AppOrigin) -> Result<(), Problem> {
    if headers.contains_key(header::ORIGIN) {
        let same = one_header(headers, "origin") == Some(bound.as_str());
        return if same { Ok(()) } else { Err(refused()) };
    }
    let within = match one_header(headers, FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => {
            !headers.contains_key(FETCH_SITE)
                && one_header(headers, "host").is_some_and(|h| h.eq_ignore_ascii_case(bound.authority()))
        }
    };
    if method == Method::GET && within { Ok(()) } else { Err(refused()) }
}

/// What every answer says; `to`: the page that may read it.
pub(super) fn tell(mut response: Response, to: Option<&AppOrigin>) -> Response {
    vary(&mut response);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = to.and_then(|o| HeaderValue::from_str(o.as_str()).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}

/// The answer to one origin is none for another.
fn vary(response: &mut Response) {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(*name, HeaderValue::from_static(value));
        }
        all
    }

    #[test]
    fn the_bound_origin_is_let_in_and_a_get_without_one_from_the_same_origin() {
        let bound = AppOrigin::parse("https://shop.example").unwrap();
        let ok = |method: &Method, pairs: &[(&'static str, &'static str)]| check(method, &headers(pairs), &bound).is_ok();
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            assert!(ok(&method, &[("origin", "https://shop.example")]));
            for wrong in ["https://shop.example.evil.example", "http://shop.example", "https://shop.example:8443", "null", ""] {
                assert!(!ok(&method, &[("origin", wrong), ("sec-fetch-site", "same-origin")]), "{wrong}");
            }
            assert!(!ok(&method, &[("origin", "https://shop.example"), ("origin", "https://shop.example")]), "twice");
        }
        assert!(
            ok(&Method::GET, &[("sec-fetch-site", "same-origin"), ("host", "127.0.0.1:1")]),
            "behind a proxy the host is another"
        );
        assert!(ok(&Method::GET, &[("host", "Shop.example")]), "an old browser");
        assert!(!ok(&Method::GET, &[("host", "pay.example")]));
        assert!(!ok(&Method::GET, &[]));
        for site in ["same-site", "cross-site", "none"] {
            assert!(!ok(&Method::GET, &[("sec-fetch-site", site), ("host", "shop.example")]), "{site}");
        }
        assert!(
            !ok(&Method::POST, &[("sec-fetch-site", "same-origin"), ("host", "shop.example")]),
            "browsers send one with all but GET"
        );
    }

    #[test]
    fn a_preflight_is_answered_by_what_it_says() {
        let asks = |origin, method, more| {
            preflight(&headers(&[
                ("origin", origin),
                ("access-control-request-method", method),
                ("access-control-request-headers", more),
            ]))
        };
        let good = asks("https://a.example", "PATCH", "authorization,content-type, If-Match");
        assert_eq!(good.status(), StatusCode::NO_CONTENT);
        let said = |name| good.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(
            (said("access-control-allow-origin"), said("vary"), said("access-control-max-age")),
            ("https://a.example", "Origin", "600")
        );
        assert_eq!(said("access-control-allow-methods"), "GET, POST, PATCH, DELETE");
        assert_eq!(said("access-control-allow-headers"), "authorization, content-type, if-match");
        for (origin, method, more) in [
            ("null", "GET", ""),
            ("http://a.example", "GET", ""),
            ("https://A.example", "GET", ""),
            ("*", "GET", ""),
            ("https://a.example", "PUT", ""),
            ("https://a.example", "GET", "x-other"),
        ] {
            let refused = asks(origin, method, more);
            assert_eq!(refused.status(), StatusCode::FORBIDDEN);
            assert!(!refused.headers().contains_key("access-control-allow-origin"), "{origin} {method} {more}");
        }
    }
}
