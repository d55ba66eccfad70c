//! The transforms of SRTP: AES in counter mode with HMAC-SHA1, which every WebRTC peer has (RFC 3711; RFC 8827, section
//! 6.5), and AES-GCM (RFC 7714), which costs less.
//!
//! The libraries there are would bring a TLS or URL stack along, and allocate for each packet; the ciphers are libraries.

use aes::cipher::{
    BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper,
    consts::U16,
};
use aes::{Aes128, Aes256};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;

/// Bytes of the tag of HMAC-SHA1.
const SHORT_TAG: usize = 10;
/// And of AES-GCM's.
const TAG: usize = 16;
/// The first label of the keys for RTCP.
const CONTROL: u8 = 3;
/// Set in the last word of a packet of RTCP that is encrypted.
const ENCRYPTED: u32 = 1 << 31;
/// Bytes of RTCP that are not encrypted.
const CONTROL_HEADER: usize = 8;

/// A master key and its salt, as DTLS gives them.
#[derive(Clone, Copy)]
pub enum MasterKey {
    /// `SRTP_AES128_CM_SHA1_80`: 16 bytes, and 14 of salt.
    Counter([u8; 30]),
    /// `SRTP_AEAD_AES_128_GCM`: 16 bytes, and 12 of salt.
    Gcm128([u8; 28]),
    /// `SRTP_AEAD_AES_256_GCM`: 32 bytes, and 12 of salt.
    Gcm256([u8; 44]),
}

impl MasterKey {
    /// The key with its salt, by their length; `None` if that is no transform's.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let counter = bytes.try_into().ok().map(Self::Counter);
        let gcm128 = || bytes.try_into().ok().map(Self::Gcm128);
        counter.or_else(gcm128).or_else(|| bytes.try_into().ok().map(Self::Gcm256))
    }
}

/// What is derived from a master key: what encrypts and authenticates packets.
pub enum Cipher {
    Counter { cipher: Box<Aes128>, salt: [u8; 14], mac: Box<Hmac<Sha1>> },
    Gcm128 { cipher: Box<Aes128Gcm>, salt: [u8; 12] },
    Gcm256 { cipher: Box<Aes256Gcm>, salt: [u8; 12] },
}

impl Cipher {
    /// Derives all keys for RTP (RFC 3711, section 4.3; RFC 7714, section 11).
    pub fn derive(master: &MasterKey) -> Self {
        Self::derive_from(master, 0)
    }

    /// The same for RTCP.
    pub fn derive_for_control(master: &MasterKey) -> Self {
        Self::derive_from(master, CONTROL)
    }

    fn derive_from(master: &MasterKey, label: u8) -> Self {
        match master {
            MasterKey::Counter(master) => {
                let (cipher, salt) = derive::<Aes128, 16, 14>(master, label);
                let mut mac = [0; 20];
                generate::<Aes128>(&master[..16], &master[16..], label + 1, &mut mac);
                let mac = Hmac::new_from_slice(&mac).expect("any length will do for HMAC");
                Self::Counter {
                    cipher: Box::new(Aes128::new(&cipher.into())),
                    salt,
                    mac: Box::new(mac),
                }
            }
            MasterKey::Gcm128(master) => {
                let (key, salt) = derive::<Aes128, 16, 12>(master, label);
                Self::Gcm128 { cipher: Box::new(Aes128Gcm::new(&key.into())), salt }
            }
            MasterKey::Gcm256(master) => {
                let (key, salt) = derive::<Aes256, 32, 12>(master, label);
                Self::Gcm256 { cipher: Box::new(Aes256Gcm::new(&key.into())), salt }
            }
        }
    }

    /// Bytes that protection adds to a packet.
    pub fn tag_length(&self) -> usize {
        match self {
            Self::Counter { .. } => SHORT_TAG,
            Self::Gcm128 { .. } | Self::Gcm256 { .. } => TAG,
        }
    }

    /// Encrypts the packet of this index, whose payload begins at `begin`, in place, and appends its tag.
    pub fn seal(&self, packet: &mut Vec<u8>, begin: usize, index: u64) {
        match self {
            Self::Counter { cipher, salt, mac } => {
                let iv = counter(salt, packet, index);
                apply_keystream(&**cipher, iv, &mut packet[begin..]);
                packet.extend_from_slice(&short_tag(mac, packet, index));
            }
            Self::Gcm128 { cipher, salt } => {
                seal(&**cipher, nonce(salt, packet, index), packet, begin)
            }
            Self::Gcm256 { cipher, salt } => {
                seal(&**cipher, nonce(salt, packet, index), packet, begin)
            }
        }
    }

    /// Encrypts a compound of RTCP, the `index`th of its sender, in place, and appends index and tag (RFC 3711, section 3.4;
    /// RFC 7714, section 9).
    pub fn seal_control(&self, packet: &mut Vec<u8>, index: u32) {
        let word = (index | ENCRYPTED).to_be_bytes();
        match self {
            Self::Counter { cipher, salt, mac } => {
                let iv = control_counter(salt, packet, index);
                apply_keystream(&**cipher, iv, &mut packet[CONTROL_HEADER..]);
                packet.extend(word);
                packet.extend(&mac_of(mac, packet)[..SHORT_TAG]);
            }
            Self::Gcm128 { cipher, salt } => seal_control(&**cipher, salt, packet, index),
            Self::Gcm256 { cipher, salt } => seal_control(&**cipher, salt, packet, index),
        }
    }

    /// Decrypts a compound of RTCP in place; gives it without what protects it, and its index. `None` if it is not authentic.
    pub fn open_control<'a>(&self, packet: &'a mut [u8]) -> Option<(&'a [u8], u32)> {
        match self {
            Self::Counter { cipher, salt, mac } => {
                let (authentic, tag) = packet.split_last_chunk_mut::<SHORT_TAG>()?;
                if !bool::from(mac_of(mac, authentic)[..SHORT_TAG].ct_eq(tag)) {
                    return None;
                }
                let (plain, word) = authentic.split_last_chunk_mut::<4>()?;
                let word = u32::from_be_bytes(*word);
                if plain.len() < CONTROL_HEADER {
                    return None;
                }
                if word & ENCRYPTED != 0 {
                    let iv = control_counter(salt, plain, word & !ENCRYPTED);
                    apply_keystream(&**cipher, iv, &mut plain[CONTROL_HEADER..]);
                }
                Some((plain, word & !ENCRYPTED))
            }
            Self::Gcm128 { cipher, salt } => open_control(&**cipher, salt, packet),
            Self::Gcm256 { cipher, salt } => open_control(&**cipher, salt, packet),
        }
    }

    /// Decrypts the packet of this index, with its tag, in place; if it is not authentic, nothing has changed.
    pub fn open(&self, packet: &mut [u8], begin: usize, index: u64) -> bool {
        match self {
            Self::Counter { cipher, salt, mac } => {
                let (plain, tag) = packet.split_at_mut(packet.len() - SHORT_TAG);
                let is_authentic = short_tag(mac, plain, index)[..].ct_eq(tag).into();
                if is_authentic {
                    apply_keystream(&**cipher, counter(salt, plain, index), &mut plain[begin..]);
                }
                is_authentic
            }
            Self::Gcm128 { cipher, salt } => {
                open(&**cipher, nonce(salt, packet, index), packet, begin)
            }
            Self::Gcm256 { cipher, salt } => {
                open(&**cipher, nonce(salt, packet, index), packet, begin)
            }
        }
    }
}

/// A session key and salt, `label` being that of the key.
fn derive<C, const KEY: usize, const SALT: usize>(
    master: &[u8],
    label: u8,
) -> ([u8; KEY], [u8; SALT])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit + Clone,
{
    let (key, salt) = master.split_at(KEY);
    let (mut session_key, mut session_salt) = ([0; KEY], [0; SALT]);
    generate::<C>(key, salt, label, &mut session_key);
    generate::<C>(key, salt, label + 2, &mut session_salt);
    (session_key, session_salt)
}

/// Derives what `label` stands for; a salt that is shorter than 14 bytes is followed by zeros.
fn generate<C>(key: &[u8], salt: &[u8], label: u8, out: &mut [u8])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit + Clone,
{
    let mut iv = [0; 16];
    iv[..salt.len()].copy_from_slice(salt);
    iv[7] ^= label;
    apply_keystream(&C::new_from_slice(key).expect("it is as long as keys are"), iv, out);
}

/// AES in counter mode.
fn apply_keystream<C>(cipher: &C, iv: [u8; 16], data: &mut [u8])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Clone,
{
    let counter =
        ctr::CtrCore::<C, ctr::flavors::Ctr128BE>::inner_iv_init(cipher.clone(), &iv.into());
    StreamCipherCoreWrapper::from_core(counter).apply_keystream(data);
}

/// Where the counter begins (RFC 3711, section 4.1.1).
fn counter(salt: &[u8; 14], packet: &[u8], index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor(&mut iv[4..8], &packet[8..12]);
    xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
    iv
}

/// The initialization vector of AES-GCM (RFC 7714, section 8.1).
fn nonce(salt: &[u8; 12], packet: &[u8], index: u64) -> [u8; 12] {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &packet[8..12]);
    xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
    nonce
}

/// The same for RTCP, whose SSRC comes earlier.
fn control_counter(salt: &[u8; 14], packet: &[u8], index: u32) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor(&mut iv[4..8], &packet[4..8]);
    xor(&mut iv[10..14], &index.to_be_bytes());
    iv
}

fn control_nonce(salt: &[u8; 12], header: &[u8], index: u32) -> [u8; 12] {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &header[4..8]);
    xor(&mut nonce[8..12], &index.to_be_bytes());
    nonce
}

fn mac_of(mac: &Hmac<Sha1>, bytes: &[u8]) -> [u8; 20] {
    mac.clone().chain_update(bytes).finalize().into_bytes().into()
}

fn seal_control<C>(cipher: &C, salt: &[u8; 12], packet: &mut Vec<u8>, index: u32)
where
    C: AeadInOut<NonceSize = aes::cipher::consts::U12, TagSize = U16>,
{
    let word = (index | ENCRYPTED).to_be_bytes();
    let (header, payload) = packet.split_at_mut(CONTROL_HEADER);
    let nonce = control_nonce(salt, header, index);
    let authentic = [&*header, &word].concat();
    let tag = cipher.encrypt_inout_detached(&nonce.into(), &authentic, payload.into());
    packet.extend_from_slice(&tag.expect("no packet is longer than gigabytes"));
    packet.extend(word);
}

fn open_control<'a, C>(cipher: &C, salt: &[u8; 12], packet: &'a mut [u8]) -> Option<(&'a [u8], u32)>
where
    C: AeadInOut<NonceSize = aes::cipher::consts::U12, TagSize = U16>,
{
    let (sealed, word) = packet.split_last_chunk_mut::<4>()?;
    let index = u32::from_be_bytes(*word) & !ENCRYPTED;
    if u32::from_be_bytes(*word) & ENCRYPTED == 0 || sealed.len() < CONTROL_HEADER + TAG {
        return None; // Nobody sends it in the clear.
    }
    let length = sealed.len() - TAG;
    let (plain, tag) = sealed.split_at_mut(length);
    let (header, payload) = plain.split_at_mut(CONTROL_HEADER);
    let nonce = control_nonce(salt, header, index);
    let authentic = [&*header, &*word].concat();
    let tag = (*tag).try_into().expect("it is as long as tags are");
    cipher.decrypt_inout_detached(&nonce.into(), &authentic, payload.into(), &tag).ok()?;
    Some((plain, index))
}

/// The authentication tag of HMAC-SHA1 (RFC 3711, section 4.2).
fn short_tag(mac: &Hmac<Sha1>, packet: &[u8], index: u64) -> [u8; SHORT_TAG] {
    let rollover = (index >> 16) as u32;
    let mac = mac.clone().chain_update(packet).chain_update(rollover.to_be_bytes());
    *mac.finalize().into_bytes().first_chunk().expect("SHA-1 gives 20 bytes")
}

fn seal<C>(cipher: &C, nonce: [u8; 12], packet: &mut Vec<u8>, begin: usize)
where
    C: AeadInOut<NonceSize = aes::cipher::consts::U12, TagSize = U16>,
{
    let (header, payload) = packet.split_at_mut(begin);
    let tag = cipher.encrypt_inout_detached(&nonce.into(), header, payload.into());
    packet.extend_from_slice(&tag.expect("no packet is longer than gigabytes"));
}

fn open<C>(cipher: &C, nonce: [u8; 12], packet: &mut [u8], begin: usize) -> bool
where
    C: AeadInOut<NonceSize = aes::cipher::consts::U12, TagSize = U16>,
{
    let (header, rest) = packet.split_at_mut(begin);
    let Some((payload, tag)) = rest.split_last_chunk_mut::<TAG>() else { return false };
    let tag = (*tag).into();
    cipher.decrypt_inout_detached(&nonce.into(), header, payload.into(), &tag).is_ok()
}

fn xor(place: &mut [u8], with: &[u8]) {
    place.iter_mut().zip(with).for_each(|(place, with)| *place ^= with);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|n| u8::from_str_radix(&text[2 * n..][..2], 16).unwrap())
    }

    #[test]
    fn keys_are_derived_as_in_the_rfc() {
        // RFC 3711, appendix B.3.
        let master = hex("E1F97A0D3E018BE0D64FA32C06DE41390EC675AD498AFEEBB6960B3AABE6");
        let Cipher::Counter { cipher, salt, mac } = Cipher::derive(&MasterKey::Counter(master))
        else {
            panic!("it is AES in counter mode")
        };
        assert_eq!(salt, hex("30CBBC08863D8C85D49DB34A9AE1"));
        let expected: [u8; 20] = hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
        let expected = Hmac::<Sha1>::new_from_slice(&expected).unwrap().chain_update(b"x");
        assert_eq!(mac.clone().chain_update(b"x").finalize(), expected.finalize());
        let mut block = [0; 16];
        apply_keystream(&*cipher, [0; 16], &mut block);
        let mut same = [0; 16];
        let cipher = Aes128::new(&hex::<16>("C61E7A93744F39EE10734AFE3FF7A087").into());
        apply_keystream(&cipher, [0; 16], &mut same);
        assert_eq!(block, same);
    }

    #[test]
    fn packets_are_sealed_with_aes_gcm_as_in_the_rfc() {
        // RFC 7714, sections 16.1.1 and 16.2.1: the keys there are the session's.
        let header: [u8; 12] = hex("8040f17b8041f8d35501a0b2");
        let payload: [u8; 38] =
            hex("47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573");
        let packet = [&header[..], &payload].concat();
        let salt = hex("517569642070726f2071756f");
        let cases: [(Cipher, &str); 2] = [
            (
                Cipher::Gcm128 {
                    cipher: Box::new(Aes128Gcm::new(
                        &hex::<16>("000102030405060708090a0b0c0d0e0f").into(),
                    )),
                    salt,
                },
                "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                Cipher::Gcm256 {
                    cipher: Box::new(Aes256Gcm::new(
                        &hex::<32>(
                            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                        )
                        .into(),
                    )),
                    salt,
                },
                "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ];
        for (cipher, expected) in cases {
            let mut sealed = packet.clone();
            cipher.seal(&mut sealed, header.len(), 0xF17B);
            assert_eq!(sealed[header.len()..], hex::<54>(expected));
            assert!(cipher.open(&mut sealed, header.len(), 0xF17B));
            assert_eq!(sealed[..packet.len()], packet);
        }
    }
}
