//! A backup brings everything back, keeps keys apart, and never overwrites what it should not.

use crate::clock::Timestamp;
use crate::store::backup::{self, BackupError};
use crate::store::{InviteCheck, unlock};
use crate::vault::VaultConfig;

use super::{Bench, on_both};

on_both!(a_backup_comes_back_whole_with_its_keys_apart, a_backup_of_another_version_is_refused_before_anything_is_touched);

async fn a_backup_of_another_version_is_refused_before_anything_is_touched(desk: Bench) {
    let dir = tempfile::tempdir().unwrap();
    let vault = VaultConfig { master_key_file: dir.path().join("a.key"), ..VaultConfig::default() };
    unlock(&*desk.store, &vault, desk.entropy.clone()).await.unwrap();
    let ann = desk.customer("+442079460958", "111111").await;
    desk.close().await;
    let cfg = desk.config();
    let [older, newer] = ["older", "newer"].map(|name| dir.path().join(name));
    backup::backup(&cfg, &older, None).await.unwrap();
    // What a program that is newer than this one does.
    let columns = "version, description, installed_on, success, checksum, execution_time";
    let migrated = format!(
        "INSERT INTO _sqlx_migrations ({columns}) SELECT 9999, 'newer', installed_on, success, checksum, 0 FROM _sqlx_migrations WHERE version = 1"
    );
    desk.sql(&migrated).await.unwrap();
    backup::backup(&cfg, &newer, None).await.unwrap();
    for replace in [false, true] {
        let restored = backup::restore(&cfg, &vault, &newer, None, replace, desk.entropy.clone()).await.unwrap_err().to_string();
        assert!(restored.contains("newer voicepay (its migration 9999"), "{restored}");
    }
    let over = backup::restore(&cfg, &vault, &older, None, desk.on_postgres(), desk.entropy.clone()).await.unwrap_err();
    assert!(over.to_string().contains("newer voicepay"), "{over}");
    assert_eq!(matches!(over, BackupError::NewerTables { there: 9999, .. }), desk.on_postgres(), "{over:?}");
    desk.sql("DELETE FROM _sqlx_migrations WHERE version = 9999").await.unwrap();
    assert!(desk.opened_again().await.customer(&ann).await.unwrap().is_some(), "it is as it was");
}

async fn a_backup_comes_back_whole_with_its_keys_apart(desk: Bench) {
    let dir = tempfile::tempdir().unwrap();
    let vault = |name: &str| VaultConfig { master_key_file: dir.path().join(name), ..VaultConfig::default() };
    unlock(&*desk.store, &vault("a.key"), desk.entropy.clone()).await.unwrap();
    let ann = desk.customer("+442079460958", "111111").await;
    let card = desk.card(&ann, 7);
    desk.store.add_card(&card, &desk.audit()).await.unwrap();
    let key = "INSERT INTO card_keys (card_id, key_version, wrapped) SELECT id, 1, CAST('WRAPPEDKEY' AS BLOB) FROM cards";
    desk.sql(&if desk.on_postgres() { key.replace("BLOB", "bytea") } else { key.to_owned() }).await.unwrap();
    let (data, keys) = (dir.path().join("b"), dir.path().join("b.keys"));
    let cfg = desk.config();
    let written = backup::backup(&cfg, &data, None).await.unwrap();
    assert_eq!((&written.data.0, &written.keys.0), (&data, &keys));
    for path in [&data, &keys] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let twice = backup::backup(&cfg, &data, None).await;
    assert!(matches!(twice, Err(BackupError::Exists(_))), "{twice:?}");
    let holds = |path: &std::path::Path| std::fs::read(path).unwrap().windows(10).any(|w| w == b"WRAPPEDKEY");
    // A dump of PostgreSQL's is compressed; there the restore below shows it.
    assert!(desk.on_postgres() || (holds(&keys) && !holds(&data)), "the keys lie apart");

    let invite = desk.invite(&ann, 1).await;
    let restore =
        async |vault: &VaultConfig, keys, replace| backup::restore(&cfg, vault, &data, keys, replace, desk.entropy.clone()).await;
    desk.close().await;
    let kept = restore(&vault("a.key"), Some(&*keys), false).await;
    assert!(matches!(kept, Err(BackupError::HoldsData(_))), "{kept:?}");
    std::fs::write(dir.path().join("other.key"), "11".repeat(32)).unwrap();
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path().join("other.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let other = restore(&vault("other.key"), Some(&*keys), true).await;
    assert!(matches!(other, Err(BackupError::Key(_))), "{other:?}");
    let store = desk.opened_again().await;
    assert_eq!(
        store.check_invite(&[1; 32], Some(&ann), Timestamp(2), 3).await.unwrap(),
        InviteCheck::Good(invite),
        "it is as it was"
    );
    if desk.on_postgres() {
        // Within this process a SQLite database can't be told apart from one that is in use by another.
        let used = restore(&vault("a.key"), Some(&*keys), true).await;
        assert!(matches!(used, Err(BackupError::InUse(_))), "{used:?}");
    }
    store.close().await;
    for (given, wrapped) in [(None, 0), (Some(&*keys), 1)] {
        restore(&vault("a.key"), given, true).await.unwrap();
        let store = desk.opened_again().await;
        assert_eq!(
            store.check_invite(&[1; 32], Some(&ann), Timestamp(2), 3).await.unwrap(),
            InviteCheck::Refused,
            "it came later"
        );
        assert_eq!(store.card(&card.id).await.unwrap().unwrap().sealed.body, card.sealed.body);
        let count = "UPDATE card_keys SET key_version = key_version";
        assert_eq!(desk.sql(count).await.unwrap(), wrapped);
        assert!(desk.sql("DELETE FROM audit").await.is_err(), "its rules came with it");
        unlock(&*store, &vault("a.key"), desk.entropy.clone()).await.unwrap();
        store.audit(&desk.audit()).await.unwrap();
        store.close().await;
    }
    let text = dir.path().join("text");
    std::fs::write(&text, "no backup at all").unwrap();
    let unsound = backup::restore(&cfg, &vault("a.key"), &text, None, true, desk.entropy.clone()).await;
    assert!(matches!(unsound, Err(BackupError::Unsound { .. })), "{unsound:?}");
    desk.opened_again().await.customer(&ann).await.unwrap().unwrap();
}
