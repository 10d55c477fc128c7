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
    let mut command = Command::new(program);
    command.arg(flag).arg(text).env("API", format!("http://{}", shop.address())).env("KEY", &shop.key);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_walk() {
    let shop = Shop::open().await;
    let walk = format!("set -euo pipefail\n{}", block("sh"));
    let mut bash = command(&shop, "bash", "-c", &walk);
    let done = spawn_blocking(move || bash.output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    assert!(out.contains("\"cancelled\"") && out.contains("City Water Works") && out.contains("request.added"), "{out}");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_python() {
    let shop = Shop::open().await;
    let mut child = command(&shop, "python3", "-c", &block("python")).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (asked, mut out) = spawn_blocking(move || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        (line, out)
    })
    .await
    .unwrap();
    let id = asked.trim().strip_prefix("asked ").unwrap_or_else(|| panic!("{asked}"));
    // The customer calls and pays.
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
    assert!(rest.contains("refunded 500 of 1999") && rest.contains("receipt "), "{rest}");
    assert!(rest.contains("payees ['City Water Works']"), "{rest}");
    shop.service.stop().await;
}
