//! Targets against a DNS server of our own on a real socket.

use proptest::prelude::*;

use super::testing::{Known, dns};
use super::*;
use crate::clock::SeededEntropy;

async fn places(server: SocketAddr, target: &str, transport: Transport) -> Result<Vec<String>, ResolveError> {
    let finder = Finder::new(&[server]);
    let target = Target::parse(target).unwrap();
    let found = finder.places(&target, transport, &SeededEntropy::new(1)).await?;
    assert!(found.iter().all(|p| p.transport == transport && p.name == target.host_text().trim_matches(['[', ']'])));
    Ok(found.iter().map(|p| p.address.to_string()).collect())
}

#[tokio::test]
async fn srv_leads_to_its_hosts_by_priority_and_a_port_or_an_address_needs_none() {
    let server = dns(vec![
        ("_sips._tcp.carrier.example", Known::Srv(20, 1, 5071, "backup.carrier.example")),
        ("_sips._tcp.carrier.example", Known::Srv(10, 1, 5061, "main.carrier.example")),
        ("_sips._tcp.carrier.example", Known::Srv(30, 1, 5061, "gone.carrier.example")),
        ("main.carrier.example", Known::A([192, 0, 2, 1])),
        ("main.carrier.example", Known::Aaaa([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
        ("backup.carrier.example", Known::A([192, 0, 2, 2])),
        ("carrier.example", Known::A([192, 0, 2, 9])),
        ("_sip._udp.none.example", Known::Srv(0, 0, 0, "")),
    ])
    .await;
    let mut found = places(server, "carrier.example", Transport::Tls).await.unwrap();
    assert_eq!(found.pop().unwrap(), "192.0.2.2:5071");
    found.sort();
    assert_eq!(found, ["192.0.2.1:5061", "[2001:db8::1]:5061"]);
    // No SRV for UDP: the name's own address.
    assert_eq!(places(server, "carrier.example", Transport::Udp).await.unwrap(), ["192.0.2.9:5060"]);
    assert_eq!(places(server, "carrier.example:5080", Transport::Tls).await.unwrap(), ["192.0.2.9:5080"]);
    assert_eq!(places(server, "192.0.2.7", Transport::Tls).await.unwrap(), ["192.0.2.7:5061"]);
    assert_eq!(places(server, "[2001:db8::7]:5070", Transport::Tcp).await.unwrap(), ["[2001:db8::7]:5070"]);
    assert_eq!(places(server, "none.example", Transport::Udp).await, Err(ResolveError::NotOffered("none.example".into())));
    assert_eq!(places(server, "nowhere.example", Transport::Udp).await, Err(ResolveError::Nothing("nowhere.example".into())));
}

#[tokio::test]
async fn a_dns_server_that_is_silent_is_not_waited_for_long() {
    let server = dns(Vec::new()).await;
    let begun = tokio::time::Instant::now();
    let error = places(server, "silent.example", Transport::Udp).await.unwrap_err();
    assert!(matches!(&error, ResolveError::Unasked { name, .. } if name.contains("silent.example")), "{error}");
    assert!(begun.elapsed() < Duration::from_millis(LOOKUP_LIMIT_MS + 500), "{:?}", begun.elapsed());
}

#[test]
fn weights_share_the_first_tries() {
    let service = |weight| Service { priority: 1, weight, port: weight, host: "h".into() };
    let entropy = SeededEntropy::new(7);
    let mut first = [0u32; 3];
    for _ in 0..4_000 {
        match order(vec![service(10), service(30), service(0)], &entropy)[0].weight {
            10 => first[0] += 1,
            30 => first[1] += 1,
            _ => first[2] += 1,
        }
    }
    assert!((850..1_150).contains(&first[0]) && (2_700..3_100).contains(&first[1]) && first[2] > 20, "{first:?}");
}

#[test]
fn places_that_failed_come_last_for_a_while() {
    let place = |n| Place { address: ([192, 0, 2, n], 5060).into(), transport: Transport::Udp, name: "h".into() };
    let (now, all) = (Timestamp(1_000_000), vec![place(1), place(2), place(3)]);
    let mut avoided = Avoided::default();
    avoided.failed(now, &place(1), None);
    avoided.failed(now, &place(2), Some(Duration::from_secs(5)));
    assert_eq!(avoided.order(now, all.clone()), [place(3), place(1), place(2)]);
    let later = now.plus(Duration::from_secs(6));
    assert_eq!(avoided.order(later, all.clone()), [place(2), place(3), place(1)]);
    avoided.answered(&place(1));
    assert_eq!(avoided.order(later, all.clone()), all);
    for n in 0..=255 {
        avoided.failed(later, &place(n), Some(Duration::MAX));
    }
    avoided.failed(later, &Place { transport: Transport::Tcp, ..place(1) }, None);
    assert_eq!(avoided.0.len(), AVOIDED_LIMIT);
    avoided.failed(later.plus(Duration::from_secs(301)), &place(1), None);
    assert_eq!(avoided.0.len(), 1);
}

proptest! {
    #[test]
    fn ordering_loses_none_and_keeps_priorities(services in prop::collection::vec((0u16..4, 0u16..100), 0..20), seed: u64) {
        let services: Vec<Service> =
            services.iter().enumerate().map(|(i, (p, w))| Service { priority: *p, weight: *w, port: i as u16, host: String::new() }).collect();
        let ordered = order(services.clone(), &SeededEntropy::new(seed));
        prop_assert!(ordered.is_sorted_by_key(|s| s.priority));
        let ports = |s: &[Service]| s.iter().map(|s| s.port).collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(ports(&ordered), ports(&services));
    }
}
