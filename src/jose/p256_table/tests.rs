//! Tests of the table: its parts, Wycheproof, and comparison with the results of AWS-LC and p256.

mod cases;
mod differential;
mod exhaustive;
mod parts;
mod vectors;

use p256::elliptic_curve::ops::Reduce as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{FieldBytes, ProjectivePoint, Scalar};

/// Wide enough for a product of two integers of 257 bits.
type Integer = ruint::Uint<576, 9>;

/// Any 256-bit integer, modulo n, computed by p256.
fn scalar(bytes: &[u8; 32]) -> Scalar {
    Scalar::reduce(&FieldBytes::from(*bytes))
}

fn bytes(scalar: Scalar) -> [u8; 32] {
    scalar.to_bytes().into()
}

/// `04 ‖ x ‖ y`, of a point other than infinity.
fn uncompressed(point: ProjectivePoint) -> [u8; 65] {
    let bytes = point.to_affine().to_uncompressed_point();
    bytes.as_slice().try_into().unwrap()
}

fn to_integer(bytes: &[u8; 32]) -> Integer {
    Integer::from_be_slice(bytes)
}

fn to_bytes(integer: Integer) -> [u8; 32] {
    assert!(integer.bit_len() <= 256, "{integer}");
    *integer.to_be_bytes::<72>().last_chunk().unwrap()
}

/// 32 bytes from their hexadecimal digits.
fn hex32(digits: &str) -> [u8; 32] {
    assert_eq!(digits.len(), 64);
    std::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
}

/// The hexadecimal digits of bytes, for a failure message.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

const P: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
