//! What the text of a CSV cell is.
//!
//! The rules are frozen: a change would make the same input give other results. Unquoted cells: empty is null; `true` and
//! `false` are booleans; digits with an optional `-` are whole numbers, unless they have a leading zero (`007` is a code, not a
//! number) or do not fit 64 bits, which leaves them text with all their digits; digits with a point or an exponent are numbers;
//! RFC 3339 with an offset (`2001-01-31T12:00:00Z`) is a time; everything else is text. Quoted cells are always text.

use thalweg_core::Value;

/// The value of an unquoted cell.
#[inline]
pub(super) fn typed(cell: &[u8]) -> Result<Value, std::str::Utf8Error> {
    let known = match cell {
        [] => Some(Value::Null),
        [b'0'..=b'9' | b'-' | b'.', ..] => number(cell).or_else(|| time(cell)),
        b"true" => Some(Value::Bool(true)),
        b"false" => Some(Value::Bool(false)),
        _ => None,
    };
    match known {
        Some(value) => Ok(value),
        None => text(cell),
    }
}

/// The value of a quoted cell, and of what is nothing else.
#[inline]
pub(super) fn text(cell: &[u8]) -> Result<Value, std::str::Utf8Error> {
    std::str::from_utf8(cell).map(Value::from)
}

/// Most digits that always fit an `i64`.
const SURE_DIGITS: usize = 18;

#[inline]
fn number(cell: &[u8]) -> Option<Value> {
    let digits = cell.strip_prefix(b"-").unwrap_or(cell);
    if digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit() {
        return None;
    }
    if digits.len() <= SURE_DIGITS {
        let mut sum = 0i64;
        let all = digits.iter().all(|byte| {
            // Cannot overflow: at most 18 digits count, and the first byte that is none ends the sum.
            sum = sum.wrapping_mul(10).wrapping_add(i64::from(byte.wrapping_sub(b'0')));
            byte.is_ascii_digit()
        });
        if all && !digits.is_empty() {
            return Some(Value::Int(if digits.len() < cell.len() { -sum } else { sum }));
        }
    } else if digits.iter().all(u8::is_ascii_digit) {
        return std::str::from_utf8(cell).ok()?.parse().ok().map(Value::Int);
    }
    fraction(cell, digits)
}

/// A number with a point or an exponent; at least one digit, nothing but what JSON's numbers are made of.
fn fraction(cell: &[u8], digits: &[u8]) -> Option<Value> {
    let made_of = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'-' | b'+');
    if !digits.iter().all(made_of) || !digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.') {
        return None;
    }
    let number: f64 = std::str::from_utf8(cell).ok()?.parse().ok()?;
    number.is_finite().then_some(Value::Float(number))
}

/// RFC 3339 with an offset, to the microsecond.
fn time(cell: &[u8]) -> Option<Value> {
    const SHORTEST: usize = "2001-01-31T12:00:00Z".len();
    let form = |pattern: &[u8]| {
        cell.iter().zip(pattern).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            form => byte == form,
        })
    };
    if cell.len() < SHORTEST || !form(b"0000-00-00T00:00:00") || !offset(&cell[19..]) {
        return None;
    }
    let time: jiff::Timestamp = std::str::from_utf8(cell).ok()?.parse().ok()?;
    Some(Value::Time(time.as_microsecond()))
}

/// Whether this is an optional fraction of a second and then `Z` or an offset in hours and minutes.
fn offset(mut rest: &[u8]) -> bool {
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return false;
        }
        rest = &fraction[digits..];
    }
    match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cells: &[(&str, Value)]) {
        for (cell, value) in cells {
            let found = typed(cell.as_bytes()).expect(cell);
            assert_eq!((found.kind(), &found), (value.kind(), value), "{cell:?}");
        }
    }

    #[test]
    fn cells_have_their_types_forever() {
        let time = |micros| Value::Time(micros);
        check(&[
            ("", Value::Null),
            ("0", Value::Int(0)),
            ("-0", Value::Int(0)),
            ("-15", Value::Int(-15)),
            ("999999999999999999", Value::Int(999_999_999_999_999_999)),
            ("9223372036854775807", Value::Int(i64::MAX)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("1.5", Value::Float(1.5)),
            ("-1.5e3", Value::Float(-1500.0)),
            (".5", Value::Float(0.5)),
            ("5.", Value::Float(5.0)),
            ("0.1", Value::Float(0.1)),
            ("1e5", Value::Float(1e5)),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("2001-01-01T00:01:00Z", time(978_307_260_000_000)),
            ("2001-01-01 00:01:00.25Z", time(978_307_260_250_000)),
            ("2001-01-01T02:01:00+02:00", time(978_307_260_000_000)),
        ]);
        let texts = [
            "007",
            "-007",
            "00.5",
            "9223372036854775808",
            "+5",
            "-",
            ".",
            "-.",
            "1.2.3",
            "1e",
            "e5",
            "1e999",
            "1_000",
            "0x10",
            " 5",
            "5 ",
            "True",
            "TRUE",
            "null",
            "NaN",
            "inf",
            "2001-01-01",
            "2001-01-01T00:01:00",
            "2001-13-01T00:01:00Z",
            "12:30",
            "--5",
            "2001-01-01T00:01:00+0200",
            "1,5",
            "SEA",
            "é",
        ];
        check(&texts.map(|text| (text, Value::from(text))));
        assert!(typed(b"a\xff").is_err());
    }
}
