//! Whatever comes, in whatever order and at whatever time: no panic, no stall, nothing above the ceiling.

use audiomixer_core::limiter::CEILING;
use audiomixer_core::{Mixer, Participant};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Remove(u8),
    Rtp { to: u8, sequence: u16, timestamp: u32, payload: Vec<u8>, arrival: f64, level: Option<u8> },
    Follow { to: u8, packets: u8, payload: Vec<u8> },
    Pcm { to: u8, samples: Vec<f32>, channels: usize },
    Gain(u8, f32),
    Mute(u8, Option<bool>),
    Mix(f64),
    Minus(u8),
    Volumes,
}

fn time() -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.0..2.0, 1 => -1e12..1e12, 1 => Just(f64::NAN)]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        // CELT of 20 ms, mono and stereo, and SILK of 60 ms: mostly decodable.
        (prop::sample::select(vec![0xf8u8, 0xfc, 0x18]), prop::collection::vec(any::<u8>(), 1..80))
            .prop_map(|(header, body)| [vec![header], body].concat()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0u8..4;
    prop_oneof![
        2 => who.clone().prop_map(Step::Add),
        1 => who.clone().prop_map(Step::Remove),
        4 => (who.clone(), any::<u16>(), any::<u32>(), payload(), time(), any::<Option<u8>>()).prop_map(
            |(to, sequence, timestamp, payload, arrival, level)| Step::Rtp { to, sequence, timestamp, payload, arrival, level }
        ),
        6 => (who.clone(), 1u8..40, payload())
            .prop_map(|(to, packets, payload)| Step::Follow { to, packets, payload }),
        2 => (who.clone(), prop::collection::vec(-70.0f32..70.0, 0..2000), 1usize..=2)
            .prop_map(|(to, samples, channels)| Step::Pcm { to, samples, channels }),
        1 => (who.clone(), -1.0f32..5.0).prop_map(|(to, gain)| Step::Gain(to, gain)),
        1 => (who.clone(), any::<Option<bool>>()).prop_map(|(to, muted)| Step::Mute(to, muted)),
        8 => time().prop_map(Step::Mix),
        2 => who.prop_map(Step::Minus),
        1 => Just(Step::Volumes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_breaks_the_mix(steps in prop::collection::vec(step(), 1..120)) {
        let mixer = Mixer::new(48_000, 2, 0.04, 0.4).unwrap();
        let mut participants: [Option<Participant>; 4] = Default::default();
        let mut followed = [(0u16, 0u32, 0.0f64); 4];
        let mut out = vec![0.0f32; 1920];
        for step in steps {
            // Errors are answers too: only panics, stalls and overloads are not.
            match step {
                Step::Add(who) => {
                    if let Ok(participant) = mixer.add_participant(&who.to_string()) {
                        participants[who as usize] = Some(participant);
                    }
                }
                Step::Remove(who) => drop(mixer.remove_participant(&who.to_string())),
                Step::Rtp { to, sequence, timestamp, payload, arrival, level } => {
                    let to = participants[to as usize].as_ref();
                    drop(to.map(|p| p.push_rtp(sequence, timestamp, &payload, arrival, level)));
                }
                Step::Follow { to, packets, payload } => {
                    let Some(participant) = &participants[to as usize] else { continue };
                    for _ in 0..packets {
                        let (sequence, timestamp, arrival) = &mut followed[to as usize];
                        drop(participant.push_rtp(*sequence, *timestamp, &payload, *arrival, None));
                        *sequence = sequence.wrapping_add(1);
                        *timestamp = timestamp.wrapping_add(960);
                        *arrival += 0.02;
                        if mixer.mix(*arrival, &mut out).is_ok() {
                            prop_assert!(out.iter().all(|sample| sample.abs() <= CEILING));
                        }
                    }
                }
                Step::Pcm { to, samples, channels } => {
                    drop(participants[to as usize].as_ref().map(|p| p.push_pcm(&samples, channels)));
                }
                Step::Gain(who, gain) => drop(participants[who as usize].as_ref().map(|p| p.set_gain(gain))),
                Step::Mute(who, muted) => {
                    drop(participants[who as usize].as_ref().map(|p| p.set_signalled_mute(muted)));
                }
                Step::Mix(now) => {
                    if mixer.mix(now, &mut out).is_ok() {
                        prop_assert!(out.iter().all(|sample| sample.abs() <= CEILING));
                    }
                }
                Step::Minus(who) => {
                    let minus = participants[who as usize].as_ref().map(|p| mixer.mix_minus(p, &mut out));
                    if let Some(Ok(())) = minus {
                        prop_assert!(out.iter().all(|sample| sample.abs() <= CEILING));
                    }
                }
                Step::Volumes => {
                    let levels = mixer.volumes().into_iter().map(|volume| volume.level);
                    prop_assert!(levels.into_iter().all(|level| (-1..=32_767).contains(&level)));
                }
            }
        }
    }
}
