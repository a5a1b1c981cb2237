//! How servers read a path: the part on which all agree, and the rest.
//!
//! The gateway decides by the path of a request, and the service reads it again. Servers differ in how: some decode
//! percent-encoding before they look for a handler, some after it, some twice, some not at all; some take `%2F` or `\` for a
//! slash, merge slashes, resolve `..`, remove `;parameters`, or a dot or a space at the end of a segment, or cut at a NUL; some
//! ignore case. If the two read a path in different ways, a request could pass by the rules of one route and be served as
//! another.
//!
//! So a path has two parts. In the first, each segment is clear: there is nothing in it that servers treat differently, except
//! whether they decode it and whether they ignore case, which gives four [readings](Path::readings). The second begins with
//! the first segment that is not clear, and may be read as anything below the first. If `..` may be in it, nothing of the
//! path is known. The work is linear in the length of the path.
//!
//! Servers that take other characters for ASCII ones (`．` for `.`, by Unicode normalisation or a "best fit") are not covered.

/// As sent, or decoded; each also without case.
pub(crate) const READINGS: usize = 4;

pub(crate) struct Path {
    /// The first part, as different servers read it: empty, or segments that each follow a slash.
    pub(crate) readings: [String; READINGS],
    pub(crate) rest: Rest,
}

/// The second part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    None,
    Unclear,
}

impl Path {
    /// `None`: the path does not begin with a slash, or has characters that are not visible ASCII.
    pub(crate) fn read(path: &str) -> Option<Self> {
        let below_root = path.strip_prefix('/')?;
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (mut sent, mut decoded, mut rest) = (String::new(), String::new(), Rest::None);
        // The root has no segment.
        let mut segments = below_root
            .split('/')
            .skip(usize::from(below_root.is_empty()));
        while let Some(segment) = segments.next() {
            let Some(clear) = Clear::read(segment) else {
                rest = Rest::Unclear;
                if may_climb(segment) || segments.any(may_climb) {
                    sent.clear();
                    decoded.clear();
                }
                break;
            };
            for (reading, segment) in [(&mut sent, clear.sent), (&mut decoded, clear.decoded)] {
                reading.push('/');
                reading.push_str(&segment);
            }
        }
        Some(Self {
            readings: [without_case(&sent), without_case(&decoded), sent, decoded],
            rest,
        })
    }
}

/// A segment in which nothing is treated differently.
struct Clear {
    /// With percent-encoding in upper case.
    sent: String,
    decoded: String,
}

impl Clear {
    fn read(segment: &str) -> Option<Self> {
        let (mut sent, mut decoded) = (Vec::new(), Vec::new());
        let mut rest = segment.as_bytes();
        while let [byte, behind @ ..] = rest {
            match (byte, behind) {
                (b'%', [high, low, behind @ ..]) => {
                    decoded.push(escaped(*high, *low)?);
                    sent.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
                    rest = behind;
                }
                (b'%', _) => return None,
                _ => {
                    decoded.push(*byte);
                    sent.push(*byte);
                    rest = behind;
                }
            }
        }
        let is_special = |byte: &u8| byte.is_ascii_control() || b"/\\%;?#".contains(byte);
        let cut = matches!(decoded.first(), None | Some(b' '))
            || matches!(decoded.last(), None | Some(b' ' | b'.'));
        if cut || decoded.iter().any(is_special) {
            return None;
        }
        Some(Self {
            sent: String::from_utf8(sent).ok()?,
            decoded: String::from_utf8(decoded).ok()?,
        })
    }
}

/// Whether a server could find `..` in this segment: encoded any number of times, with control characters that it removes, in
/// an encoding that is not UTF-8, or in one that only old servers of Microsoft know (`%u002e`).
fn may_climb(segment: &str) -> bool {
    let mut decoded: Vec<u8> = Vec::new();
    for byte in segment.bytes() {
        decoded.push(byte);
        // `%252e` becomes `%2e` when its `5` is read, and `.` at its end.
        while let [.., b'%', high, low] = decoded[..]
            && let Some(byte) = escaped(high, low)
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(byte);
        }
    }
    let Ok(text) = std::str::from_utf8(&decoded) else {
        return true;
    };
    text.contains("..")
        || text.contains("%u")
        || text.contains("%U")
        || text.contains(char::is_control)
}

/// The byte that two hexadecimal digits encode.
fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Upper case first: some letters that are not ASCII have an ASCII letter as their other case.
fn without_case(text: &str) -> String {
    text.to_uppercase().to_lowercase()
}
