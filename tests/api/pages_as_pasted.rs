//! docs/API.md's pages, run as they are pasted.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use super::support::Shop;

/// The one block of this kind.
fn block(kind: &str) -> String {
    let page = include_str!("../../docs/API.md");
    let fence = format!("```{kind}\n");
    let mut all = page.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned());
    let block = all.next().unwrap_or_else(|| panic!("docs/API.md has no block of {kind}"));
    assert!(all.next().is_none(), "docs/API.md has two blocks of {kind}");
    block
}

fn command(shop: &Shop, program: &str, flag: &str, text: &str) -> Command {
    // A port that nobody has now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    command
        .arg(flag)
        .arg(text)
        .env("API", format!("http://{}", shop.address()))
        .env("KEY", &shop.key)
        .env("PORT", port.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A shop whose webhooks may come to this machine.
async fn shop() -> Shop {
    Shop::with("requests_per_s = 10000\nburst = 10000\n[notify]\nprivate_networks = true\n").await
}

/// Runs a page up to where it has asked for money, pays as the customer would, and lets it end: what it printed after.
async fn paid_in_between(shop: &Shop, mut page: Command) -> String {
    let mut child = page.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (asked, mut out) = spawn_blocking(move || {
        let mut line = String::new();
        while !line.starts_with("asked ") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the page ended before it asked for money");
        }
        (line, out)
    })
    .await
    .unwrap();
    // The customer calls and pays.
    let id = asked.trim().trim_start_matches("asked ");
    let request = shop.get(&format!("/v1/requests/{id}")).await.good(200);
    shop.pay(&request).await;
    let (ended, rest, err) = spawn_blocking(move || {
        let (mut rest, mut err) = (String::new(), String::new());
        out.read_to_string(&mut rest).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (child.wait().unwrap(), rest, err)
    })
    .await
    .unwrap();
    assert!(ended.success(), "{rest}{err}");
    rest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_walk() {
    let shop = shop().await;
    let walk = format!("set -euo pipefail\n{}", block("sh"));
    let out = paid_in_between(&shop, command(&shop, "bash", "-c", &walk)).await;
    assert!(out.contains("verified payment.succeeded"), "{out}");
    assert!(out.contains("City Water Works") && out.contains("request.added") && out.contains("\"delivered\""), "{out}");
    assert!(out.contains("\"deleted\""), "{out}");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_python() {
    let shop = shop().await;
    let out = paid_in_between(&shop, command(&shop, "python3", "-c", &block("python"))).await;
    assert!(out.contains("is paid: 1999 USD") && out.contains("heard of the refund: 500"), "{out}");
    assert!(out.contains("refunded 500 of 1999") && out.contains("receipt "), "{out}");
    assert!(out.contains("payees ['City Water Works']"), "{out}");
    shop.service.stop().await;
}
