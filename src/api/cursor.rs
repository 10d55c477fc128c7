//! Cursors: where a list goes on, signed, so that nobody makes one, takes one to another list, or to another tenant.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::Problem;
use crate::ids::Tenant;
use crate::vault::{ApiPurpose, Vault};

/// Bytes of the signature that a cursor carries.
const MAC_BYTES: usize = 16;

fn mac(vault: &Vault, tenant: &Tenant, list: &str, at: &[u8]) -> [u8; 32] {
    vault.api_digest(ApiPurpose::Cursor, &[tenant.as_str().as_bytes(), list.as_bytes(), at])
}

/// Signs a place of a tenant's list.
pub fn sign(vault: &Vault, tenant: &Tenant, list: &str, at: &str) -> String {
    let whole = mac(vault, tenant, list, at.as_bytes());
    let bytes: Vec<u8> = whole.iter().take(MAC_BYTES).chain(at.as_bytes()).copied().collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place; refused unless we signed it for this tenant and list.
pub fn open(vault: &Vault, tenant: &Tenant, list: &str, cursor: &str) -> Result<String, Problem> {
    let wrong = || Problem::invalid("`after` is not a cursor of this list: take `next` of the page before as it is");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let (signature, at) = bytes.split_at_checked(MAC_BYTES).ok_or_else(wrong)?;
    let whole = mac(vault, tenant, list, at);
    let same = whole.get(..MAC_BYTES).is_some_and(|ours| subtle::ConstantTimeEq::ct_eq(ours, signature).into());
    if !same {
        return Err(wrong());
    }
    String::from_utf8(at.to_vec()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn a_cursor_is_good_for_its_tenant_and_list_alone() {
        let vault = Vault::from_master(&[7; 32], Arc::new(SeededEntropy::new(1)));
        let (shop, bank) = (Tenant::parse("shop").unwrap(), Tenant::parse("bank").unwrap());
        let cursor = sign(&vault, &shop, "payments", "int_1");
        assert_eq!(open(&vault, &shop, "payments", &cursor).unwrap(), "int_1");
        assert!(open(&vault, &bank, "payments", &cursor).is_err());
        assert!(open(&vault, &shop, "requests", &cursor).is_err());
        for at in 0..cursor.len() {
            let mut other: Vec<u8> = cursor.bytes().collect();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(open(&vault, &shop, "payments", &other).is_err(), "{at}");
        }
        assert!(open(&vault, &shop, "payments", "").is_err());
    }
}
