//! Decimals of Avro: big-endian two's complement, and a scale.

use thalweg_core::Value;

/// The longest number that is read, in bytes: more than 600 digits.
const MAX_BYTES: usize = 256;

/// How decimals are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decimals {
    /// As numbers: whole ones where nothing is behind the point and they fit 64 bits, else the nearest that 64 bits of floating
    /// point have.
    #[default]
    Number,
    /// As text with all their digits.
    Text,
}

/// The value of a decimal.
pub(super) fn value(bytes: &[u8], scale: usize, decimals: Decimals) -> Result<Value, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("a decimal of {} bytes; {MAX_BYTES} at most", bytes.len()));
    }
    let text = text(bytes, scale);
    if decimals == Decimals::Text {
        return Ok(Value::from(text.as_str()));
    }
    if scale == 0
        && let Ok(whole) = text.parse()
    {
        return Ok(Value::Int(whole));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::Float(number)),
        _ => Err(format!("the decimal {text} is no number of 64 bits; set decimals = \"text\"")),
    }
}

fn text(bytes: &[u8], scale: usize) -> String {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut digits = digits(magnitude(bytes, negative));
    if digits.len() <= scale {
        digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
    }
    if scale > 0 {
        digits.insert(digits.len() - scale, '.');
    }
    if negative {
        digits.insert(0, '-');
    }
    digits
}

/// The number without its sign, big-endian.
fn magnitude(bytes: &[u8], negative: bool) -> Vec<u8> {
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (next, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (next, over);
        }
    }
    magnitude
}

/// By long division, nine digits at a time.
fn digits(mut number: Vec<u8>) -> String {
    const NINE: u64 = 1_000_000_000;
    let mut groups = Vec::new();
    while number.iter().any(|byte| *byte != 0) {
        let mut rest = 0;
        for byte in &mut number {
            let part = rest << 8 | u64::from(*byte);
            *byte = (part / NINE) as u8;
            rest = part % NINE;
        }
        groups.push(rest);
    }
    let mut text = groups.pop().unwrap_or(0).to_string();
    groups.iter().rev().for_each(|group| text.push_str(&format!("{group:09}")));
    text
}

/// The bytes of a number, or of a text with one: as few as it takes, or as many as are asked for.
pub(super) fn bytes(value: &Value, scale: usize, size: Option<usize>) -> Result<Vec<u8>, String> {
    let text = match value {
        Value::Int(number) => number.to_string(),
        Value::Float(number) if number.is_finite() => number.to_string(),
        Value::Str(text) => text.to_string(),
        other => return Err(format!("takes a decimal, and {other} is a {}", other.kind())),
    };
    let number = unscaled(&text, scale).ok_or_else(|| {
        format!("takes a decimal of {scale} places behind the point and at most 38 digits, and {text} is none")
    })?;
    let all = number.to_be_bytes();
    // A byte in front says nothing where it repeats the sign of the next one.
    let sign = if number < 0 { 0xff } else { 0 };
    let spare = all.windows(2).take_while(|pair| pair[0] == sign && (pair[0] ^ pair[1]) & 0x80 == 0).count();
    let few = &all[spare..];
    match size {
        None => Ok(few.to_vec()),
        Some(size) if few.len() <= size => Ok([vec![sign; size - few.len()], few.to_vec()].concat()),
        Some(size) => Err(format!("takes a decimal of {size} bytes, and {text} has {}", few.len())),
    }
}

/// The digits as a whole number; nothing where that would lose some.
fn unscaled(text: &str, scale: usize) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part = part.trim_end_matches('0');
    if part.len() > scale || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    format!("{whole}{part}{}", "0".repeat(scale - part.len())).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], scale: usize, as_text: &str, as_number: &str) {
        let shown = |decimals| match value(bytes, scale, decimals) {
            Ok(value) => value.to_string(),
            Err(why) => why,
        };
        assert_eq!((shown(Decimals::Text), shown(Decimals::Number)), (format!("{as_text:?}"), as_number.to_owned()));
    }

    fn check_bytes(text: &str, scale: usize, size: Option<usize>, wanted: Result<&[u8], &str>) {
        match (bytes(&Value::from(text), scale, size), wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{text}"),
            (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{text}: {found}"),
            (found, wanted) => panic!("{text}: {found:?}, not {wanted:?}"),
        }
    }

    #[test]
    fn decimals_are_written_without_a_loss() {
        check_bytes("123.45", 2, None, Ok(&[0x30, 0x39]));
        check_bytes("0", 2, None, Ok(&[0]));
        check_bytes("-1", 0, None, Ok(&[0xff]));
        check_bytes("-128", 0, None, Ok(&[0x80]));
        check_bytes("128", 0, None, Ok(&[0, 0x80]));
        check_bytes("-0.5", 1, Some(3), Ok(&[0xff, 0xff, 0xfb]));
        check_bytes("1.500", 1, Some(2), Ok(&[0, 15]));
        check_bytes("1.55", 1, None, Err("1 places behind the point"));
        check_bytes("300", 0, Some(1), Err("takes a decimal of 1 bytes, and 300 has 2"));
        check_bytes("ten", 0, None, Err("and ten is none"));
        check_bytes("1.+5", 2, None, Err("is none"));
        check_bytes(&"9".repeat(39), 0, None, Err("at most 38 digits"));
        assert_eq!(bytes(&Value::Float(0.05), 2, None), Ok(vec![5]));
        assert_eq!(bytes(&Value::Int(-2), 2, None), Ok(vec![0xff, 0x38]));
    }

    #[test]
    fn decimals_have_all_their_digits() {
        check(&[], 2, "0.00", "0.0");
        check(&[0x30, 0x39], 2, "123.45", "123.45");
        check(&[0xff], 0, "-1", "-1");
        check(&[0xff], 3, "-0.001", "-0.001");
        check(&[0x80], 0, "-128", "-128");
        check(&[0x80, 0, 0, 0, 0, 0, 0, 0], 0, "-9223372036854775808", "-9223372036854775808");
        check(
            &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            0,
            "18446744073709551615",
            "1.8446744073709552e+19",
        );
        check(&[0x0d, 0xe0, 0xb6, 0xb3, 0xa7, 0x64, 0, 0], 9, "1000000000.000000000", "1000000000.0");
        // As Python's int.to_bytes has it: 10 ** 40 + 7.
        let large = [0x1d, 0x63, 0x29, 0xf1, 0xc3, 0x5c, 0xa4, 0xbf, 0xab, 0xb9, 0xf5, 0x61, 0, 0, 0, 0, 0x07];
        check(&large, 0, "10000000000000000000000000000000000000007", "1e+40");
        assert!(value(&[1; 257], 0, Decimals::Text).is_err_and(|why| why.contains("256 at most")));
        let mut beyond = vec![0x7f];
        beyond.resize(200, 0);
        assert!(value(&beyond, 0, Decimals::Number).is_err_and(|why| why.contains("decimals = \"text\"")));
    }
}
