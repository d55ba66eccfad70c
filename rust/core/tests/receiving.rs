//! What is heard over a network: timelines.

mod network;

use network::{Call, Random, punctual, tone, voice};

/// The tone's RMS, less what codec and edits may cost.
const WHOLE: f32 = 0.9 * 0.3 * std::f32::consts::FRAC_1_SQRT_2;

#[test]
fn a_punctual_stream_is_played_whole_at_the_least_delay() {
    let mut call = Call::new(punctual(tone(440.0, 4)));
    call.until(4.0);
    assert!(call.quietest(0.2, 3.9) > WHOLE);
    let stats = call.stats();
    assert_eq!((stats.received, stats.lost, stats.late, stats.discarded), (200, 0, 0, 0));
    assert_eq!(stats.concealed, 0.0);
    assert!((0.03..=0.05).contains(&stats.delay), "{}", stats.delay);
}

#[test]
fn a_tenth_of_the_packets_lost_at_random_leaves_no_gap() {
    let mut random = Random(7);
    let mut packets = punctual(voice(10));
    packets.retain(|_| random.next() > 0.1);
    let sent = packets.len() as u64;
    let mut call = Call::new(packets);
    call.until(10.0);
    assert!(call.quietest(0.3, 9.9) > 0.005, "{}", call.quietest(0.3, 9.9));
    let stats = call.stats();
    // Of those at the very end it is not known yet.
    assert!(stats.received == sent && (0..3).contains(&(500 - sent - stats.lost)), "{stats:?}");
    assert!(stats.recovered > 20, "most have a copy in the next packet: {stats:?}");
}

#[test]
fn jitter_raises_the_delay_and_calm_lowers_it_again() {
    let mut random = Random(3);
    let mut packets = punctual(tone(440.0, 60));
    for packet in &mut packets[250..750] {
        packet.arrival += 0.12 * random.next();
    }
    let mut call = Call::new(packets);
    call.until(5.0);
    let calm = call.stats().target_delay;
    call.until(15.0);
    let restless = call.stats().target_delay;
    call.until(60.0);
    assert!(calm <= 0.05 && restless >= 0.1, "{calm} {restless}");
    let later = call.stats().target_delay;
    assert!(later < restless - 0.03, "{restless} {later}");
    assert!(call.quietest(0.2, 59.9) > 0.02, "{}", call.quietest(0.2, 59.9));
}

#[test]
fn reordered_packets_are_put_in_order_and_doubled_ones_heard_once() {
    let mut packets = punctual(tone(440.0, 4));
    for pair in packets.chunks_exact_mut(4) {
        let [.., one, other] = pair else { unreachable!("there are four") };
        (one.arrival, other.arrival) = (other.arrival, one.arrival);
    }
    packets.extend(packets.clone());
    let mut call = Call::new(packets);
    call.until(4.0);
    let stats = call.stats();
    assert_eq!((stats.received, stats.duplicate, stats.lost), (200, 200, 0));
    assert!(call.quietest(0.2, 3.9) > WHOLE);
}

#[test]
fn a_stall_is_bridged_and_what_came_late_is_given_back_within_three_seconds() {
    let mut packets = punctual(tone(440.0, 8));
    for packet in &mut packets[100..108] {
        packet.arrival = 2.17;
    }
    let mut call = Call::new(packets);
    call.until(8.0);
    assert_eq!(call.stats().lost, 0);
    assert!(call.quietest(0.2, 7.9) > 0.02, "{}", call.quietest(0.2, 7.9));
    let over = call.delays[280] - call.stats().target_delay;
    assert!(over < 0.18, "{over}");
}

#[test]
fn a_pause_of_the_sender_is_silence_and_no_loss() {
    let mut packets = punctual(tone(440.0, 4));
    for packet in &mut packets[100..] {
        packet.frame += 100.0;
        packet.arrival += 2.0;
    }
    let mut call = Call::new(packets);
    call.until(6.0);
    assert_eq!(call.stats().lost, 0);
    assert!(call.loudest(2.4, 3.9) < 1e-3);
    assert!(call.quietest(4.3, 5.9) > WHOLE);
    assert!(call.stats().concealed < 0.1, "{}", call.stats().concealed);
}

#[test]
fn a_clock_that_stands_still_in_pauses_raises_no_delay() {
    let mut packets = punctual(tone(440.0, 10));
    for (n, packet) in packets.iter_mut().enumerate() {
        packet.arrival += (n / 50) as f64 * 0.8;
    }
    let mut call = Call::new(packets);
    call.until(17.0);
    let stats = call.stats();
    assert_eq!((stats.lost, stats.late), (0, 0));
    assert!(stats.target_delay <= 0.05, "{}", stats.target_delay);
    for utterance in 1..9 {
        let begins = 0.01 + 1.8 * f64::from(utterance);
        let (from, to) = ((begins + 0.12) * 50.0, (begins + 0.9) * 50.0);
        assert!(call.quietest(from.ceil() / 50.0, to.floor() / 50.0) > WHOLE, "{utterance}");
    }
}

#[test]
fn a_sender_that_starts_anew_is_heard_again_at_once() {
    let mut packets = punctual(tone(440.0, 4));
    for packet in &mut packets[100..] {
        packet.number += 20_000;
        packet.frame += 1_000_000.0;
    }
    let mut call = Call::new(packets);
    call.until(4.0);
    assert!(call.quietest(2.2, 3.9) > WHOLE);
    assert_eq!(call.stats().discarded, 1, "the first that did not belong");
}

#[test]
fn a_mute_that_is_signalled_is_told_and_not_heard_until_it_is_taken_back() {
    let mut call = Call::new(punctual(tone(440.0, 4)));
    call.until(1.0).mute(Some(true)).until(2.0).mute(Some(false)).until(3.0);
    assert_eq!((call.volumes[2], call.volumes[3]), (-1, -1));
    assert!(call.volumes[1] > 6000 && call.volumes[5] > 6000, "{:?}", call.volumes);
    assert_eq!(call.loudest(1.1, 1.98), 0.0);
    assert!(call.quietest(2.1, 2.98) > WHOLE);
}

#[test]
fn who_stops_is_muted_after_a_second() {
    let mut packets = punctual(tone(440.0, 4));
    packets.truncate(100);
    let mut call = Call::new(packets);
    call.until(4.0);
    assert!(
        call.volumes[3] > 0 && call.volumes[6..].iter().all(|&v| v == -1),
        "{:?}",
        call.volumes
    );
}
