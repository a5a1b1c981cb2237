//! RSA keys that sign: with AWS-LC if it is available, with `rsa` otherwise. `private_key.rs` explains why.

#[cfg(feature = "aws-lc-rs")]
pub(crate) use self::aws_lc::{Key, generate};
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use self::rust_crypto::{Key, generate};

#[cfg(feature = "aws-lc-rs")]
mod aws_lc {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    };
    use pkcs1::RsaPrivateKeyRef;
    use pkcs8::PrivateKeyInfoRef;
    use zeroize::Zeroizing;

    use crate::jose::algorithm::Algorithm;

    pub(crate) struct Key(RsaKeyPair);

    /// A new 2048-bit key as PKCS#1.
    pub(crate) fn generate() -> Option<Zeroizing<Vec<u8>>> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().ok()?;
        let info = PrivateKeyInfoRef::try_from(pkcs8.as_ref()).ok()?;
        Some(Zeroizing::new(info.private_key.as_bytes().to_vec()))
    }

    impl Key {
        pub(crate) fn parse(_: &RsaPrivateKeyRef<'_>, pkcs1: &[u8]) -> Option<Self> {
            RsaKeyPair::from_der(pkcs1).ok().map(Self)
        }

        pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
            let encoding: &'static dyn RsaEncoding = match algorithm {
                Algorithm::Ps256 => &RSA_PSS_SHA256,
                Algorithm::Ps384 => &RSA_PSS_SHA384,
                Algorithm::Ps512 => &RSA_PSS_SHA512,
                Algorithm::Rs256 => &RSA_PKCS1_SHA256,
                Algorithm::Rs384 => &RSA_PKCS1_SHA384,
                Algorithm::Rs512 => &RSA_PKCS1_SHA512,
                _ => return None,
            };
            let mut signature = vec![0; self.0.public_modulus_len()];
            self.0
                .sign(encoding, &SystemRandom::new(), message, &mut signature)
                .ok()?;
            Some(signature)
        }
    }
}

#[cfg(not(feature = "aws-lc-rs"))]
mod rust_crypto {
    use pkcs1::{RsaPrivateKeyRef, UintRef};
    use pkcs8::der::Encode as _;
    use rsa::rand_core::{CryptoRng, Error, RngCore, impls};
    use rsa::sha2::{Digest as _, Sha256, Sha384, Sha512};
    use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
    use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPrivateKey};
    use zeroize::Zeroizing;

    use crate::jose::algorithm::Algorithm;

    pub(crate) struct Key(RsaPrivateKey);

    /// A new 2048-bit key as PKCS#1.
    pub(crate) fn generate() -> Option<Zeroizing<Vec<u8>>> {
        let key = RsaPrivateKey::new(&mut OsRandom::new()?, 2048).ok()?;
        let [prime1, prime2] = key.primes() else {
            return None;
        };
        let coefficient = Zeroizing::new(key.crt_coefficient()?);
        let [
            modulus,
            public_exponent,
            private_exponent,
            prime1,
            prime2,
            exponent1,
            exponent2,
            coefficient,
        ] = [
            key.n(),
            key.e(),
            key.d(),
            prime1,
            prime2,
            key.dp()?,
            key.dq()?,
            &coefficient,
        ]
        .map(|number| Zeroizing::new(number.to_bytes_be()));
        let numbers = RsaPrivateKeyRef {
            modulus: UintRef::new(&modulus).ok()?,
            public_exponent: UintRef::new(&public_exponent).ok()?,
            private_exponent: UintRef::new(&private_exponent).ok()?,
            prime1: UintRef::new(&prime1).ok()?,
            prime2: UintRef::new(&prime2).ok()?,
            exponent1: UintRef::new(&exponent1).ok()?,
            exponent2: UintRef::new(&exponent2).ok()?,
            coefficient: UintRef::new(&coefficient).ok()?,
            other_prime_infos: None,
        };
        numbers.to_der().ok().map(Zeroizing::new)
    }

    impl Key {
        /// Checks what AWS-LC checks: that n = pq, that d is an inverse of e, and that the other
        /// three numbers follow from these.
        pub(crate) fn parse(numbers: &RsaPrivateKeyRef<'_>, _: &[u8]) -> Option<Self> {
            let number = |bytes: UintRef<'_>| BigUint::from_bytes_be(bytes.as_bytes());
            let key = RsaPrivateKey::from_components(
                number(numbers.modulus),
                number(numbers.public_exponent),
                number(numbers.private_exponent),
                vec![number(numbers.prime1), number(numbers.prime2)],
            )
            .ok()?;
            let [dp, dq, qi] = [numbers.exponent1, numbers.exponent2, numbers.coefficient]
                .map(|bytes| Zeroizing::new(number(bytes)));
            let coefficient = Zeroizing::new(key.crt_coefficient()?);
            (key.dp() == Some(&*dp) && key.dq() == Some(&*dq) && *coefficient == *qi)
                .then_some(Self(key))
        }

        pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
            let key = &self.0;
            let mut random = OsRandom::new()?;
            match algorithm {
                Algorithm::Ps256 => key.sign_with_rng(
                    &mut random,
                    Pss::new_blinded::<Sha256>(),
                    &Sha256::digest(message),
                ),
                Algorithm::Ps384 => key.sign_with_rng(
                    &mut random,
                    Pss::new_blinded::<Sha384>(),
                    &Sha384::digest(message),
                ),
                Algorithm::Ps512 => key.sign_with_rng(
                    &mut random,
                    Pss::new_blinded::<Sha512>(),
                    &Sha512::digest(message),
                ),
                Algorithm::Rs256 => key.sign_with_rng(
                    &mut random,
                    Pkcs1v15Sign::new::<Sha256>(),
                    &Sha256::digest(message),
                ),
                Algorithm::Rs384 => key.sign_with_rng(
                    &mut random,
                    Pkcs1v15Sign::new::<Sha384>(),
                    &Sha384::digest(message),
                ),
                Algorithm::Rs512 => key.sign_with_rng(
                    &mut random,
                    Pkcs1v15Sign::new::<Sha512>(),
                    &Sha512::digest(message),
                ),
                _ => return None,
            }
            .ok()
        }
    }

    /// The operating system's randomness, for the trait that `rsa` requires, which cannot report a
    /// failure.
    struct OsRandom;

    impl OsRandom {
        /// `None` if the operating system provides no randomness. Once it has provided some, it does
        /// not stop.
        fn new() -> Option<Self> {
            getrandom::fill(&mut [0]).ok().map(|()| Self)
        }
    }

    impl RngCore for OsRandom {
        fn next_u32(&mut self) -> u32 {
            impls::next_u32_via_fill(self)
        }

        fn next_u64(&mut self) -> u64 {
            impls::next_u64_via_fill(self)
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            getrandom::fill(bytes).expect("the operating system goes on giving randomness");
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    impl CryptoRng for OsRandom {}
}
