//! A real PostgreSQL server behind TLS, certified by an authority of our own: who shows the right name is believed, who shows another, or is certified
//! by somebody else, is not; and what the address says of TLS is what happens.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sqlx::{Connection, PgConnection};
use voicepay::store::{DatabaseUrl, People, PgStore, Store, StoreConfig, StoreError, backup};

use super::proof::cluster::{self, Cluster};

/// Who may come in: over the network by TLS only.
const DOORS: &str = "local all all trust\nhostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n";
/// Whom the server's certificate names.
const NAME: &str = "localhost";

/// An authority, and a certificate of it for [`NAME`] with its key.
fn certified() -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "An authority of this test");
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    (authority.pem(), server.pem(), server_key.serialize_pem())
}

/// Writes the server's certificate where it looks for it.
fn dress(data: &Path, certificate: &str, key: &str) -> Result<(), String> {
    for (name, text) in [("server.crt", certificate), ("server.key", key), ("pg_hba.conf", DOORS)] {
        let path = data.join(name);
        std::fs::write(&path, text).map_err(|e| e.to_string())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(|e| e.to_string())?;
        cluster::give(&path)?;
    }
    Ok(())
}

#[test]
fn only_the_server_that_is_meant_is_believed() {
    let (authority, certificate, key) = certified();
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (dir.path().join("ours.pem"), dir.path().join("other.pem"));
    std::fs::write(&ours, authority).unwrap();
    std::fs::write(&other, certified().0).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = [format!("port={port}"), "listen_addresses=localhost".to_owned(), "ssl=on".to_owned()];
    let started = Cluster::start_with(&settings, |data| dress(data, &certificate, &key));
    let Some(cluster) = Cluster::needed(started) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(is_believed(&cluster, port, dir.path(), &ours, &other));
}

async fn is_believed(cluster: &Cluster, port: u16, dir: &Path, ours: &Path, other: &Path) {
    cluster.run(&["CREATE DATABASE pay TEMPLATE template0 ENCODING 'UTF8'"]).await;
    let url = |host: &str, query: &str| DatabaseUrl::parse(&format!("postgres://postgres@{host}:{port}/pay?{query}")).unwrap();
    let open = async |host: &str, query: &str| PgStore::open(&url(host, query), &StoreConfig::default()).await;
    let root = |file: &Path| format!("sslmode=verify-full&sslrootcert={}", file.display());

    let store = open(NAME, &root(ours)).await.unwrap();
    assert!(store.customers().await.unwrap().is_empty());
    let mut owner = PgConnection::connect(&cluster.url("pay")).await.unwrap();
    let ours_are = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE application_name = 'voicepay'";
    assert!(sqlx::query_scalar::<_, bool>(ours_are).fetch_one(&mut owner).await.unwrap(), "every connection of ours is by TLS");
    store.close().await;

    let refused = async |host: &str, query: &str| match open(host, query).await {
        Err(error @ StoreError::Open { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{host} {query}: let in"),
    };
    let wrong_name = refused("127.0.0.1", &root(ours)).await;
    assert!(wrong_name.contains("certificate") && wrong_name.contains("name"), "{wrong_name}");
    let stranger = refused(NAME, &root(other)).await;
    assert!(stranger.contains("certificate"), "{stranger}");
    let in_the_clear = refused(NAME, "sslmode=disable").await;
    assert!(in_the_clear.contains("no encryption"), "{in_the_clear}");
    // Who asks for the authority alone does not ask for the name; who only asks for TLS believes anybody.
    for (host, query) in
        [("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={}", ours.display())), (NAME, "sslmode=require".into())]
    {
        open(host, &query).await.unwrap().close().await;
    }
    // PostgreSQL's own programs are told the same.
    let cfg = |host: &str| StoreConfig { url: Some(url(host, &root(ours))), ..StoreConfig::default() };
    backup::backup(&cfg(NAME), &dir.join("b"), None).await.unwrap();
    let untrusted = backup::backup(&cfg("127.0.0.1"), &dir.join("c"), None).await.unwrap_err().to_string();
    assert!(untrusted.contains("certificate"), "{untrusted}");
}
