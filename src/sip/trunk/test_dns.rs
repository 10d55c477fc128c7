//! A DNS server for this room's tests, on a real socket.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;

/// What the DNS server knows.
#[derive(Clone, Debug)]
pub enum Known {
    A([u8; 4]),
    Aaaa([u8; 16]),
    Srv(u16, u16, u16, &'static str),
}

/// Answers questions of the names it knows, NXDOMAIN else; silent on `silent.example`.
pub async fn dns(records: Vec<(&'static str, Known)>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let records = Arc::new(records);
    tokio::spawn(async move {
        let mut buf = [0u8; 1_500];
        while let Ok((len, from)) = socket.recv_from(&mut buf).await {
            if let Some(answer) = answer(&buf[..len], &records) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    at
}

fn name_bytes(name: &str) -> Vec<u8> {
    let mut out: Vec<u8> =
        name.split('.').filter(|l| !l.is_empty()).flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
    out.push(0);
    out
}

fn answer(question: &[u8], records: &[(&'static str, Known)]) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    while question[at] != 0 {
        let len = usize::from(question[at]);
        name += &String::from_utf8_lossy(&question[at + 1..at + 1 + len]).to_ascii_lowercase();
        name.push('.');
        at += len + 1;
    }
    let name = name.trim_end_matches('.');
    if name.ends_with("silent.example") {
        return None;
    }
    let asked = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let of_name: Vec<_> = records.iter().filter(|(n, _)| *n == name).collect();
    let mut answers = Vec::new();
    for (_, record) in &of_name {
        let (kind, data) = match record {
            Known::A(ip) => (1, ip.to_vec()),
            Known::Aaaa(ip) => (28, ip.to_vec()),
            Known::Srv(priority, weight, port, host) => {
                let mut data: Vec<u8> = [priority, weight, port].into_iter().flat_map(|n| n.to_be_bytes()).collect();
                data.extend(name_bytes(host));
                (33, data)
            }
        };
        if kind == asked {
            let mut record = vec![0xc0, 0x0c];
            record.extend(u16::to_be_bytes(kind));
            record.extend([0, 1, 0, 0, 0, 60]);
            record.extend((data.len() as u16).to_be_bytes());
            record.extend(data);
            answers.push(record);
        }
    }
    let code = if of_name.is_empty() { 3 } else { 0 };
    let mut out = question[..2].to_vec();
    out.extend([0x85, 0x80 | code, 0, 1]);
    out.extend((answers.len() as u16).to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(&question[12..at + 5]);
    out.extend(answers.concat());
    Some(out)
}
