//! Sequences of operations that are more likely than libFuzzer's to be sensible for a while.

use audiomixer_fuzz::operations::{Asked, Step};
use proptest::prelude::*;

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

fn rate() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![3 => Just(None), 1 => prop::sample::select(vec![8_000u32, 11_025, 44_100, 48_000, 96_000, 192_000]).prop_map(Some)]
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0u8..4;
    let level = || prop::option::of(0u8..=128);
    prop_oneof![
        2 => who.clone().prop_map(Step::Add),
        1 => who.clone().prop_map(Step::Remove),
        4 => (who.clone(), any::<u16>(), any::<u32>(), payload(), time(), level()).prop_map(
            |(to, sequence, timestamp, payload, arrival, level)| Step::Rtp { to, sequence, timestamp, payload, arrival, level }
        ),
        6 => (who.clone(), 1u8..40, payload(), level())
            .prop_map(|(to, packets, payload, level)| Step::Follow { to, packets, payload, level }),
        2 => (who.clone(), prop::collection::vec(-70.0f32..70.0, 0..2000), any::<bool>(), rate())
            .prop_map(|(to, samples, stereo, rate)| Step::Pcm { to, samples, stereo, rate }),
        2 => (who.clone(), -1.0f32..5.0, any::<[bool; 3]>()).prop_map(
            |(of, gain, [muted, in_mix, denoise])| Step::Fader { of, gain, muted, in_mix, denoise }
        ),
        1 => (who.clone(), -70.0f32..10.0).prop_map(|(to, decibels)| Step::Duck(to, decibels)),
        1 => any::<bool>().prop_map(Step::Denoise),
        1 => prop::option::of(-50.0f64..5.0).prop_map(Step::Loudness),
        2 => Just(Step::Room),
        1 => (who.clone(), -1.0f32..5.0).prop_map(|(to, gain)| Step::Gain(to, gain)),
        1 => (who.clone(), any::<Option<bool>>()).prop_map(|(to, muted)| Step::Mute(to, muted)),
        1 => any::<bool>().prop_map(Step::Level),
        1 => prop::option::of(0u8..5).prop_map(Step::MaxSpeakers),
        8 => time().prop_map(Step::Mix),
        2 => who.prop_map(Step::Minus),
        1 => Just(Step::Volumes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_breaks_the_mix(steps in prop::collection::vec(step(), 1..120)) {
        let mut asked = Asked::default();
        steps.into_iter().for_each(|step| asked.perform(step));
    }
}
