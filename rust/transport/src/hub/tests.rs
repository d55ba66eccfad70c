use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use audiomixer_core::{Mixer, Participant};

use super::*;
use crate::cipher::MasterKey;
use crate::endpoint::Settled;
use crate::inlet::Settings;
use crate::reader::read_all;
use crate::srtp::Sender;
use crate::stun::Role;
use crate::stun::tests::{PASSWORD, REQUEST, bytes};
use crate::table::SSRCS;

const KEY: MasterKey = MasterKey::Counter([7; 30]);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A port, a connection that the check of RFC 5769 is for, and who is heard from it.
struct Lab {
    hub: Arc<Hub>,
    endpoint: Arc<Endpoint>,
    others: Receiver<Vec<Event>>,
    mixer: Mixer,
    participant: Participant,
}

impl Lab {
    fn new() -> Self {
        let hub = Hub::bind(&[LOCAL], 0, true).unwrap();
        let session = session();
        let (inlet, mixer) =
            (Arc::clone(&session.inlet), Mixer::new(48_000, 2, 0.04, 0.4).unwrap());
        let participant = mixer.add_participant("alice").unwrap();
        inlet.agree(Settings { key: KEY, payload_types: vec![111], level_extension: None });
        inlet.route(None, Some(participant.clone()));
        let (hand_on, others) = channel();
        let hand_on = Mutex::new(hand_on);
        let deliver = move |datagrams| drop(lock(&hand_on).send(datagrams));
        let password = std::str::from_utf8(PASSWORD).unwrap();
        let endpoint = hub.open("evtj", password, session, deliver).unwrap();
        Self { hub, endpoint, others, mixer, participant }
    }

    /// A socket that sends to the port.
    fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind((LOCAL, 0)).unwrap();
        client.connect((LOCAL, self.hub.port())).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client
    }

    /// What is handed on next, of whatever there is.
    fn next(&self) -> Vec<Event> {
        self.others.recv_timeout(Duration::from_secs(2)).unwrap()
    }

    /// ICE has come about.
    fn settle(&self, remote: SocketAddr) {
        self.endpoint.settle(Some(Settled {
            tcp: false,
            local: LOCAL,
            remote,
            username: "h6vY:evtj".into(),
            password: "theirs".into(),
            role: Role { controlling: false, tie_breaker: 7 },
        }));
    }

    /// Nothing is handed on of what has been sent.
    fn is_quiet(&self) -> bool {
        read_all();
        self.others.recv_timeout(Duration::from_millis(30)).is_err()
    }
}

fn session() -> Arc<Session> {
    Arc::new(Session::new(Arc::default(), Arc::default()))
}

fn media(sender: &mut Sender, ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(sequence.to_be_bytes());
    packet.extend((960 * u32::from(sequence)).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xF8, 0xFF, 0xFE]);
    sender.protect(&mut packet);
    packet
}

#[test]
fn who_has_sent_a_check_is_believed_and_nobody_else() {
    let lab = Lab::new();
    let (client, stranger) = (lab.client(), lab.client());
    let mut forged = bytes(REQUEST);
    forged[40] ^= 1;
    for datagram in [&forged[..], b"\x16 a hello", b"\x80\xc9 a report", &[0xFF; 30], b"", b"\x00"]
    {
        stranger.send(datagram).unwrap();
    }
    assert!(lab.is_quiet());
    assert_eq!(lab.hub.strangers(), 6);
    client.send(&bytes(REQUEST)).unwrap();
    let remote = client.local_addr().unwrap();
    let check = Event { tcp: false, local: LOCAL, remote, what: What::Datagram(bytes(REQUEST)) };
    assert_eq!(lab.next(), [check]);
    client.send(b"\x16 a hello").unwrap();
    stranger.send(b"\x16 another").unwrap();
    let handed: Vec<_> = lab.next().into_iter().map(|one| one.what).collect();
    assert_eq!(handed, [What::Datagram(b"\x16 a hello".into())]);
    assert!(lab.hub.silence(remote) < 2.0);
    lab.hub.close(&lab.endpoint);
    client.send(&bytes(REQUEST)).unwrap();
    assert!(lab.is_quiet());
    assert_eq!(lab.hub.strangers(), 8);
}

#[test]
fn a_response_is_whose_the_request_was_if_it_comes_from_there() {
    let lab = Lab::new();
    let (server, stranger) = (lab.client(), lab.client());
    let remote = server.local_addr().unwrap();
    lab.hub.send(&lab.endpoint, false, LOCAL, remote, &bytes(REQUEST)).unwrap();
    let mut response = [0; 200];
    let length = server.recv(&mut response).unwrap();
    response[0] = 1;
    stranger.send(&response[..length]).unwrap();
    assert!(lab.is_quiet());
    server.send(&response[..length]).unwrap();
    assert_eq!(lab.next().len(), 1);
    server.send(b"\x16 a hello").unwrap();
    assert_eq!(lab.next().len(), 1);
}

#[test]
fn media_is_taken_in_from_wherever_it_comes_once_its_stream_is_known_but_no_replay() {
    let lab = Lab::new();
    let (client, elsewhere, thief) = (lab.client(), lab.client(), lab.client());
    let mut sender = Sender::new(&KEY);
    let packets: Vec<_> = (0..10).map(|n| media(&mut sender, 7, n)).collect();
    client.send(&packets[0]).unwrap();
    read_all();
    assert_eq!(lab.participant.stats().received, 0, "nobody knows yet whose it is");
    client.send(&bytes(REQUEST)).unwrap();
    lab.next();
    client.send(&packets[1]).unwrap();
    read_all();
    lab.settle(client.local_addr().unwrap());
    thief.send(&packets[1]).unwrap();
    thief.send(b"\x16 a hello").unwrap();
    assert!(lab.is_quiet());
    for packet in &packets[2..5] {
        elsewhere.send(packet).unwrap();
    }
    let moved = lab.next();
    let remote = elsewhere.local_addr().unwrap();
    assert_eq!(moved, [Event { tcp: false, local: LOCAL, remote, what: What::Moved }]);
    elsewhere.send(b"\x16 more").unwrap();
    assert_eq!(lab.next().len(), 1);
    assert_eq!(lab.participant.stats().received, 4);
    // And back, a while later.
    lab.settle(remote);
    std::thread::sleep(Duration::from_millis(150));
    for packet in &packets[5..] {
        client.send(packet).unwrap();
    }
    let remote = client.local_addr().unwrap();
    assert_eq!(lab.next(), [Event { tcp: false, local: LOCAL, remote, what: What::Moved }]);
}

#[test]
fn what_nobody_has_looked_at_moves_nothing_and_streams_are_few() {
    let lab = Lab::new();
    let (client, stranger) = (lab.client(), lab.client());
    client.send(&bytes(REQUEST)).unwrap();
    lab.next();
    lab.hub.table().know(7, &lab.endpoint);
    let at = now();
    let mut sender = Sender::new(&KEY);
    let (home, away) = (client.local_addr().unwrap(), stranger.local_addr().unwrap());
    for sequence in 0..200 {
        lab.hub.take_in(&mut media(&mut sender, 7, sequence), home, LOCAL, at);
    }
    let mut forged = media(&mut sender, 7, 200);
    forged[20] ^= 1;
    assert!(lab.hub.take_in(&mut forged, away, LOCAL, at).is_empty());
    assert!(lab.hub.table().owner(away).is_none());
    for ssrc in 0..3000 {
        lab.hub.table().know(ssrc, &lab.endpoint);
    }
    assert_eq!(lab.hub.table().by_ssrc.len(), SSRCS);
    lab.hub.close(&lab.endpoint);
    lab.hub.table().know(9, &lab.endpoint);
    lab.hub.table().take_over(away, &lab.endpoint, at);
    assert!(lab.hub.table().by_ssrc.is_empty());
    assert!(lab.hub.table().by_address.is_empty());
}

#[test]
fn a_stranger_by_tcp_without_end_holds_up_nobody() {
    let lab = Lab::new();
    let (port, client) = (lab.hub.port(), lab.client());
    let flood = std::thread::spawn(move || {
        let mut stranger = TcpStream::connect((LOCAL, port)).unwrap();
        // It is over as soon as the first is nobody's.
        while stranger.write_all(&[0; 65536]).is_ok() {}
    });
    client.send(&bytes(REQUEST)).unwrap();
    assert_eq!(lab.next().len(), 1);
    flood.join().unwrap();
}

#[test]
fn an_address_at_which_somebody_is_heard_is_nobody_elses() {
    let lab = Lab::new();
    let other = lab.hub.open("other", "password", session(), |_| ()).unwrap();
    assert!(lab.hub.open("other", "password", session(), |_| ()).is_none());
    let client = lab.client();
    client.send(&bytes(REQUEST)).unwrap();
    lab.next();
    let remote = client.local_addr().unwrap();
    lab.hub.table().learn(remote, &other, now());
    assert!(Arc::ptr_eq(&lab.hub.table().owner(remote).unwrap(), &lab.endpoint));
    lab.hub.table().learn(remote, &other, now() + 2.0);
    assert!(Arc::ptr_eq(&lab.hub.table().owner(remote).unwrap(), &other));
    // Its media is its own all the same.
    let mut sender = Sender::new(&KEY);
    lab.hub.table().know(7, &lab.endpoint);
    client.send(&media(&mut sender, 7, 0)).unwrap();
    read_all();
    assert_eq!(lab.participant.stats().received, 1);
    assert!(Arc::ptr_eq(&lab.hub.table().owner(remote).unwrap(), &lab.endpoint));
}

#[test]
fn of_what_is_no_media_a_few_datagrams_are_handed_on_at_a_time() {
    let lab = Lab::new();
    let client = lab.client();
    client.send(&bytes(REQUEST)).unwrap();
    lab.next();
    std::thread::sleep(Duration::from_millis(25));
    let began = now();
    for _ in 0..200 {
        client.send(b"\x16 more").unwrap();
    }
    let ticks = ((now() - began) / 0.02) as usize + 2;
    let mut handed = 0;
    while let Ok(some) = lab.others.recv_timeout(Duration::from_millis(500)) {
        handed += some.len();
    }
    assert!((8..=8 * ticks).contains(&handed), "{handed} in {ticks} ticks");
    assert_eq!(lab.endpoint.inlet.flooded() as usize, 200 - handed);
}

#[test]
fn what_comes_by_tcp_is_sorted_likewise() {
    let lab = Lab::new();
    let connect = || TcpStream::connect((LOCAL, lab.hub.port())).unwrap();
    let frame = |datagram: &[u8]| [&(datagram.len() as u16).to_be_bytes(), datagram].concat();
    let (mut client, mut stranger) = (connect(), connect());
    stranger.write_all(&frame(b"\x16 a hello")).unwrap();
    assert_eq!(stranger.read(&mut [0; 10]).unwrap(), 0, "it is closed");
    client.write_all(&frame(&bytes(REQUEST))).unwrap();
    let check = lab.next();
    let remote = client.local_addr().unwrap();
    assert_eq!((check.len(), check[0].tcp, check[0].remote), (1, true, remote));
    let mut sender = Sender::new(&KEY);
    client.write_all(&frame(&media(&mut sender, 7, 0))).unwrap();
    client.write_all(&frame(b"\x16 a hello")).unwrap();
    assert_eq!(lab.next()[0].what, What::Datagram(b"\x16 a hello".into()));
    assert_eq!(lab.participant.stats().received, 1);
    lab.hub.path(true, LOCAL, remote).unwrap().send(b"answer").unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\x00\x06answer");
    lab.hub.close(&lab.endpoint);
    assert_eq!(client.read(&mut answer).unwrap(), 0);
    assert!(lab.hub.path(true, LOCAL, remote).is_none());
}

#[test]
fn every_packet_of_two_hundred_streams_of_one_connection_is_taken_in() {
    const STREAMS: u32 = 200;
    let lab = Lab::new();
    let client = lab.client();
    client.send(&bytes(REQUEST)).unwrap();
    lab.next();
    for ssrc in 0..STREAMS {
        let participant = lab.mixer.add_participant(&ssrc.to_string()).unwrap();
        lab.endpoint.inlet.route(Some(ssrc), Some(participant));
    }
    let mut senders: Vec<_> = (0..STREAMS).map(|_| Sender::new(&KEY)).collect();
    let before = lab.endpoint.inlet.authentic();
    for tick in 0..100 {
        for (ssrc, sender) in (0..STREAMS).zip(&mut senders) {
            client.send(&media(sender, ssrc, tick)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    read_all();
    assert_eq!(lab.endpoint.inlet.authentic() - before, u64::from(STREAMS) * 100);
}

#[test]
fn a_hub_that_is_no_more_has_given_its_port_back() {
    let lab = Lab::new();
    let port = lab.hub.port();
    assert!(Hub::bind(&[LOCAL], port, true).is_err());
    drop(lab);
    std::thread::sleep(Duration::from_millis(50));
    Hub::bind(&[LOCAL], port, true).unwrap();
}

#[test]
fn who_has_come_about_is_asked_and_answered_here_until_it_is_gone() {
    let lab = Lab::new();
    let client = lab.client();
    client.send(&bytes(REQUEST)).unwrap();
    lab.next();
    let remote = client.local_addr().unwrap();
    lab.settle(remote);
    client.send(&bytes(REQUEST)).unwrap();
    let mut buffer = [0; 500];
    let length = client.recv(&mut buffer).unwrap();
    let answer = Message::parse(&buffer[..length]).unwrap();
    assert_eq!(answer.class(), Class::Success);
    assert!(answer.is_authentic(PASSWORD));
    client.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
    let mut asked = 0;
    let gone = loop {
        if let Ok(events) = lab.others.try_recv() {
            break events;
        }
        let Ok(length) = client.recv(&mut buffer) else { continue };
        let question = Message::parse(&buffer[..length]).unwrap();
        assert!(question.is_authentic(b"theirs"));
        assert_eq!(question.ufrag(), Some(&b"h6vY"[..]));
        asked += 1;
        if asked < 3 {
            client.send(&stun::response(question.transaction(), remote, b"theirs")).unwrap();
        }
    };
    assert_eq!(gone[0].what, What::Gone);
    // One of the answers may have come too late on a busy machine.
    assert!((8..=9).contains(&asked), "{asked}");
}
