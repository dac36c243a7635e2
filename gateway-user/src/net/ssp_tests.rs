//! Two transports on loopback addresses, real sockets and real time.

use super::*;
use crate::crypto::Secret;
use crate::id::Epoch;
use crate::net::testing::in_namespace;
use crate::ssp::{Hello, Message, Role, Session, SessionEvent};
use std::net::Ipv4Addr;
use std::time::Instant;
use tokio::sync::mpsc::Receiver;

type Events = Receiver<TransportEvent>;

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 32, last))
}

/// A port free on every loopback address at this moment.
fn port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

fn spawn(local: u8, remote: u8, port: u16) -> (TransportHandle, Events) {
    let (tx, rx) = mpsc::channel(64);
    (Transport::spawn(ip(local), ip(remote), port, tx), rx)
}

async fn next(events: &mut Events) -> TransportEvent {
    timeout(Duration::from_secs(10), events.recv()).await.expect("an event in time").expect("a living transport")
}

async fn connected(events: &mut Events) -> (u64, bool) {
    match next(events).await {
        TransportEvent::Connected { conn, initiator } => (conn, initiator),
        other => panic!("{other:?}"),
    }
}

async fn closed(events: &mut Events) -> (u64, String) {
    loop {
        if let TransportEvent::Closed { conn, cause } = next(events).await {
            return (conn, cause);
        }
    }
}

async fn from(last: u8, to: SocketAddr) -> TcpStream {
    loop {
        match tcp(SocketAddr::new(ip(last), 0)).unwrap().connect(to).await {
            Ok(stream) => return stream,
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => sleep(Duration::from_millis(10)).await,
            Err(e) => panic!("{e}"),
        }
    }
}

#[tokio::test]
async fn the_higher_address_connects_and_connects_again() {
    let port = port();
    let (low, mut low_events) = spawn(1, 2, port);
    let (high, mut high_events) = spawn(2, 1, port);
    let (low_conn, initiator) = connected(&mut low_events).await;
    assert!(!initiator);
    let (high_conn, initiator) = connected(&mut high_events).await;
    assert!(initiator);
    assert!(high.send(high_conn, Bytes::from_static(b"from high")));
    assert_eq!(next(&mut low_events).await, TransportEvent::Bytes { conn: low_conn, bytes: Bytes::from_static(b"from high") });
    assert!(low.send(low_conn, Bytes::from_static(b"from low")));
    assert_eq!(next(&mut high_events).await, TransportEvent::Bytes { conn: high_conn, bytes: Bytes::from_static(b"from low") });
    low.close(low_conn, "test");
    assert_eq!(closed(&mut low_events).await, (low_conn, "test".to_owned()));
    assert_eq!(closed(&mut high_events).await.0, high_conn);
    assert!(!high.send(high_conn, Bytes::from_static(b"late")) && high.room(high_conn) == 0);
    let (again, initiator) = connected(&mut high_events).await;
    assert!(initiator && again != high_conn);
    drop(high);
    let (low_conn, _) = connected(&mut low_events).await;
    assert_eq!(closed(&mut low_events).await.0, low_conn);
}

#[tokio::test]
async fn strangers_are_closed_and_counted() {
    let port = port();
    let (low, mut events) = spawn(11, 12, port);
    let mut stranger = from(13, SocketAddr::new(ip(11), port)).await;
    let mut buf = [0; 1];
    assert!(matches!(timeout(Duration::from_secs(5), stranger.read(&mut buf)).await.unwrap(), Ok(0) | Err(_)));
    assert_eq!(low.stats().strangers, 1);
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn pending_connections_are_few_and_short_and_displace_nothing() {
    let port = port();
    let (low, mut events) = spawn(21, 22, port);
    let to = SocketAddr::new(ip(21), port);
    let mut working = from(22, to).await;
    let (first, _) = connected(&mut events).await;
    low.authenticated(first);
    let mut idle = Vec::new();
    for _ in 0..PENDING_MAX {
        idle.push(from(22, to).await);
        connected(&mut events).await;
    }
    let start = Instant::now();
    let mut refused = from(22, to).await;
    let mut buf = [0; 4];
    assert!(matches!(timeout(Duration::from_secs(5), refused.read(&mut buf)).await.unwrap(), Ok(0) | Err(_)));
    assert_eq!(low.stats().pending_refused, 1);
    for _ in 0..PENDING_MAX {
        let (conn, cause) = closed(&mut events).await;
        assert!(conn != first && cause == "not authenticated within 2 s", "{conn} {cause}");
    }
    assert!(start.elapsed() < UNAUTHENTICATED_MAX * 3);
    assert_eq!(low.stats().unauthenticated, PENDING_MAX as u64);
    assert!(low.send(first, Bytes::from_static(b"still")));
    working.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"stil");
    let _room_again = from(22, to).await;
    connected(&mut events).await;
}

#[tokio::test]
async fn a_queue_that_overflows_closes_the_connection() {
    let port = port();
    let (low, mut events) = spawn(31, 32, port);
    let _deaf = from(32, SocketAddr::new(ip(31), port)).await;
    let (conn, _) = connected(&mut events).await;
    low.authenticated(conn);
    let record = Bytes::from(vec![0; 65_537]);
    assert_eq!(low.room(conn), QUEUE_RECORDS_MAX);
    let mut sent = 0;
    while low.send(conn, record.clone()) {
        sent += 1;
        assert!(sent < 10 * QUEUE_RECORDS_MAX);
    }
    assert!(sent >= QUEUE_RECORDS_MAX);
    assert_eq!(closed(&mut events).await, (conn, "send queue is full".to_owned()));
    assert_eq!(low.stats().overflows, 1);
}

#[tokio::test]
async fn a_queue_that_was_long_says_when_it_is_empty() {
    let port = port();
    let (low, mut events) = spawn(41, 42, port);
    let mut reader = from(42, SocketAddr::new(ip(41), port)).await;
    let (conn, _) = connected(&mut events).await;
    low.authenticated(conn);
    let record = Bytes::from(vec![7; 10_000]);
    for _ in 0..QUEUE_RECORDS_MAX {
        assert!(low.send(conn, record.clone()));
    }
    let mut all = vec![0; 10_000 * QUEUE_RECORDS_MAX];
    reader.read_exact(&mut all).await.unwrap();
    assert_eq!(next(&mut events).await, TransportEvent::Writable { conn });
    assert_eq!(low.room(conn), QUEUE_RECORDS_MAX);
}

#[test]
fn addresses_may_come_later() {
    in_namespace(|| async {
        let [low, high] = [[10, 9, 0, 1], [10, 9, 0, 2]].map(IpAddr::from);
        let (low_tx, mut low_events) = mpsc::channel(64);
        let (high_tx, mut high_events) = mpsc::channel(64);
        let _low = Transport::spawn(low, high, 3249, low_tx);
        let high_handle = Transport::spawn(high, low, 3249, high_tx);
        sleep(Duration::from_millis(300)).await;
        assert!(high_events.try_recv().is_err());
        assert!(high_handle.stats().connect_failed > 0);
        assert_eq!(high_handle.stats().listen_failed, 0);
        crate::net::testing::ip("addr add 10.9.0.1/24 dev lo");
        crate::net::testing::ip("addr add 10.9.0.2/24 dev lo");
        assert!(connected(&mut high_events).await.1);
        assert!(!connected(&mut low_events).await.1);
    });
}

/// The whole way: sessions over transports, a message there, its acknowledgement back.
#[tokio::test]
async fn sessions_run_over_it() {
    let secret = Secret::new(b"9b1d0c7aa3e54f6288d5e1c0437fb962".to_vec());
    let hello = Message::Hello(Hello {
        hostname: "gw".into(),
        role: Role::Standby,
        epoch: Epoch(1),
        has_state: false,
        config: Vec::new(),
        interfaces: Vec::new(),
    });
    let port = port();
    let nodes = [spawn(51, 52, port), spawn(52, 51, port)];
    let mut tasks = Vec::new();
    for (i, (handle, mut events)) in nodes.into_iter().enumerate() {
        let (secret, hello) = (secret.clone(), hello.clone());
        tasks.push(tokio::spawn(async move {
            let (conn, initiator) = connected(&mut events).await;
            let mut session = Session::new(initiator, &secret, [i as u8 + 1; 32], Instant::now()).unwrap();
            session.send(hello, Instant::now()).unwrap();
            let mut heard = false;
            loop {
                while let Some(event) = session.poll_event() {
                    match event {
                        SessionEvent::Established => handle.authenticated(conn),
                        SessionEvent::Message { seq, .. } => {
                            session.acknowledge(seq, Instant::now());
                            heard = true;
                        }
                        SessionEvent::Acked(_) => {}
                    }
                }
                while let Some(bytes) = session.poll_transmit() {
                    assert!(handle.send(conn, bytes));
                }
                if heard && session.acked() == 1 {
                    // Long enough for the other end to get its acknowledgement.
                    sleep(Duration::from_millis(200)).await;
                    return session.stats();
                }
                match next(&mut events).await {
                    TransportEvent::Bytes { bytes, .. } => session.handle_bytes(&bytes, Instant::now()).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().version, 1);
    }
}
