//! The REST API over a real server and a real socket: what it does, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "api/app_making.rs"]
mod app_making;
#[path = "api/app_page.rs"]
mod app_page;
#[path = "api/app_support.rs"]
mod app_support;
#[path = "api/app_turned_away.rs"]
mod app_turned_away;
#[path = "api/buying.rs"]
mod buying;
#[path = "api/described.rs"]
mod described;
#[path = "api/doing.rs"]
mod doing;
#[path = "api/following.rs"]
mod following;
#[path = "api/links.rs"]
mod links;
#[path = "api/others.rs"]
mod others;
#[path = "api/pages_as_pasted.rs"]
mod pages_as_pasted;
#[path = "api/refusing.rs"]
mod refusing;
#[path = "api/repeating.rs"]
mod repeating;
#[path = "api/rights.rs"]
mod rights;
#[path = "api/speed.rs"]
mod speed;
#[path = "api/support.rs"]
mod support;
#[path = "api/tls.rs"]
mod tls;
#[path = "api/webhooks.rs"]
mod webhooks;
