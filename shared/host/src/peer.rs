//! Whether a connection comes from a process of our own user.
//!
//! A loopback port is open to every user of the machine. Linux says in `/proc/net/tcp` who owns each socket, so a
//! connection is looked up once, when it is accepted, and refused unless its other end belongs to the user we run as.
//! That keeps other users out; processes of the same user can do worse to each other anyway (see the crate's page).
//! Elsewhere nothing says it, and all of the machine's users are trusted.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt};

/// Whether the socket at `peer` that is connected to `local` belongs to the user of this process.
pub(crate) fn is_own(peer: SocketAddr, local: SocketAddr) -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let own = fs::metadata("/proc/self").map(|meta| meta.uid());
    let table = fs::read_to_string("/proc/net/tcp");
    matches!((own, table), (Ok(own), Ok(table)) if owner(&table, peer, local) == Some(own))
}

fn owner(table: &str, socket: SocketAddr, connected_to: SocketAddr) -> Option<u32> {
    let (socket, connected_to) = (hex(socket)?, hex(connected_to)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let here = fields.next()? == socket && fields.next()? == connected_to;
        if here { fields.nth(4)?.parse().ok() } else { None }
    })
}

/// An address as the table writes it: the four bytes as one number of this machine, then the port.
fn hex(address: SocketAddr) -> Option<String> {
    match address {
        SocketAddr::V4(v4) => Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port())),
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_connection_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let local = listener.local_addr().expect("bound");
        let client = std::net::TcpStream::connect(local).expect("connects");
        let (_held, peer) = listener.accept().expect("accepts");
        assert_eq!(client.local_addr().expect("connected"), peer);
        assert!(is_own(peer, local));
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(!is_own(elsewhere, local));
        let table = fs::read_to_string("/proc/net/tcp").expect("linux");
        assert_eq!(owner(&table, peer, elsewhere), None);
    }
}
