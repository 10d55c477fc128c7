//! TLS where there is a certificate; plain HTTP nowhere but on this machine.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use voicepay::config::Config;

use super::support::{Shop, parse, write_config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_certificate_nothing_goes_in_the_clear() {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["api.test".to_owned()]).unwrap();
    let (certificate, key) = (files.path().join("api.pem"), files.path().join("api.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let shop = Shop::with(&format!("certificate = {certificate:?}\nprivate_key = {key:?}\n")).await;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(shop.address()).await.unwrap();
    let name = "api.test".try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let head =
        format!("GET /v1/payees HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n", shop.key);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _closed = stream.read_to_end(&mut all).await;
    parse(&all).good(200);
    // In the clear there is no answer at all.
    let mut plain = tokio::net::TcpStream::connect(shop.address()).await.unwrap();
    plain.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _closed = plain.read_to_end(&mut all).await;
    assert!(!String::from_utf8_lossy(&all).contains("HTTP"), "{all:?}");
    shop.service.stop().await;
}

#[test]
fn plain_http_beyond_this_machine_is_refused_unless_a_proxy_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), "");
    let text = std::fs::read_to_string(&path).unwrap().replace("127.0.0.1:0", "0.0.0.0:8443");
    std::fs::write(&path, &text).unwrap();
    let error = Config::load(Some(&path)).unwrap_err().to_string();
    assert!(error.contains("api.certificate") || error.contains("certificate"), "{error}");
    std::fs::write(&path, format!("{text}behind_proxy = true\n")).unwrap();
    assert!(Config::load(Some(&path)).is_ok());
}
