//! The functions that are compiled.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use thalweg_core::{Error, Result, Value};

use super::failure;
use super::node::{Node, Scope};

/// A function; the target of a method call is its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
    Int,
    Double,
    String,
    Bool,
    Timestamp,
    Part(Part),
}

/// A part of a time, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Year,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// How a function may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Global,
    Method,
    Both,
}

/// Name, how it may be called, arguments with the target, function.
const FUNCTIONS: [(&str, Style, usize, Function); 22] = [
    ("size", Style::Both, 1, Function::Size),
    ("contains", Style::Method, 2, Function::Contains),
    ("startsWith", Style::Method, 2, Function::StartsWith),
    ("endsWith", Style::Method, 2, Function::EndsWith),
    ("lowerAscii", Style::Method, 1, Function::LowerAscii),
    ("upperAscii", Style::Method, 1, Function::UpperAscii),
    ("trim", Style::Method, 1, Function::Trim),
    ("int", Style::Global, 1, Function::Int),
    ("double", Style::Global, 1, Function::Double),
    ("string", Style::Global, 1, Function::String),
    ("bool", Style::Global, 1, Function::Bool),
    ("timestamp", Style::Global, 1, Function::Timestamp),
    ("getFullYear", Style::Method, 1, Function::Part(Part::Year)),
    ("getMonth", Style::Method, 1, Function::Part(Part::Month)),
    ("getDate", Style::Method, 1, Function::Part(Part::Date)),
    ("getDayOfMonth", Style::Method, 1, Function::Part(Part::DayOfMonth)),
    ("getDayOfWeek", Style::Method, 1, Function::Part(Part::DayOfWeek)),
    ("getDayOfYear", Style::Method, 1, Function::Part(Part::DayOfYear)),
    ("getHours", Style::Method, 1, Function::Part(Part::Hours)),
    ("getMinutes", Style::Method, 1, Function::Part(Part::Minutes)),
    ("getSeconds", Style::Method, 1, Function::Part(Part::Seconds)),
    ("getMilliseconds", Style::Method, 1, Function::Part(Part::Milliseconds)),
];

/// How a name is known.
pub(super) enum Known {
    /// It is compiled.
    Native(Function),
    /// The interpreter has it, or may have it.
    Interpreted,
    /// It is compiled, and is called otherwise; the text says how.
    Otherwise(String),
    /// Nobody has it.
    Unknown,
}

/// Functions of the interpreter, beyond the compiled ones; those of a namespace (`math.abs`) with it.
const INTERPRETED: [&str; 36] = [
    "uint",
    "bytes",
    "dyn",
    "type",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "replace",
    "split",
    "substring",
    "reverse",
    "format",
    "flatten",
    "slice",
    "distinct",
    "sort",
    "hasValue",
    "value",
    "or",
    "orValue",
    "optMap",
    "strings.quote",
    "lists.range",
    "math.greatest",
    "math.least",
    "math.abs",
    "math.ceil",
    "math.floor",
    "math.round",
    "math.trunc",
    "math.sign",
    "math.sqrt",
    "math.isNaN",
    "math.isInf",
    "math.isFinite",
];

/// Namespaces of the interpreter: names in front of a `.` that are no fields when a function of theirs follows.
pub(super) const NAMESPACES: [&str; 4] = ["math", "strings", "lists", "optional"];

/// Looks a function up by its name (with its namespace), how it is called and with how many arguments (with the target).
pub(super) fn lookup(name: &str, method: bool, arguments: usize) -> Known {
    let Some(&(_, style, expected, function)) = FUNCTIONS.iter().find(|(own, ..)| *own == name) else {
        // Names with @ are the parser's own, made from macros.
        let known = name.contains('@') || name.starts_with("optional.") || INTERPRETED.contains(&name);
        return if known { Known::Interpreted } else { Known::Unknown };
    };
    let fits = match style {
        Style::Global => !method,
        Style::Method => method,
        Style::Both => true,
    };
    if fits && arguments == expected {
        return Known::Native(function);
    }
    let inner = if expected == 2 { "x" } else { "" };
    Known::Otherwise(match style {
        Style::Method => format!("{name} is called as text.{name}({inner})"),
        Style::Global | Style::Both => format!("{name} is called as {name}(x)"),
    })
}

/// Every function name, for proposals.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name).chain(INTERPRETED)
}

impl Function {
    /// Calls it; the compiler has checked the number of arguments.
    pub(super) fn call(self, arguments: &[Node], scope: &Scope<'_>) -> Result<Value> {
        let first = arguments[0].evaluate(scope)?;
        match arguments.get(1) {
            Some(second) => self.binary(&first, &*second.evaluate(scope)?),
            None => self.unary(first),
        }
    }

    fn binary(self, text: &Value, other: &Value) -> Result<Value> {
        let (Value::Str(own), Value::Str(part)) = (text, other) else {
            return Err(failure(format!(
                "{text} and {other}: {} takes texts, found {} and {}",
                self.name(),
                text.kind(),
                other.kind()
            )));
        };
        Ok(Value::Bool(match self {
            Function::Contains => own.contains(part.as_str()),
            Function::StartsWith => own.starts_with(part.as_str()),
            Function::EndsWith => own.ends_with(part.as_str()),
            Function::Size
            | Function::LowerAscii
            | Function::UpperAscii
            | Function::Trim
            | Function::Int
            | Function::Double
            | Function::String
            | Function::Bool
            | Function::Timestamp
            | Function::Part(_) => unreachable!("the compiler counts arguments"),
        }))
    }

    fn unary(self, of: Cow<'_, Value>) -> Result<Value> {
        match self {
            Function::Size => self.size(&of),
            Function::LowerAscii => self.text(&of).map(|text| text.to_ascii_lowercase().as_str().into()),
            Function::UpperAscii => self.text(&of).map(|text| text.to_ascii_uppercase().as_str().into()),
            Function::Trim => self.text(&of).map(|text| text.trim().into()),
            Function::Int => self.int(&of),
            Function::Double => self.double(&of),
            Function::String => self.string(of),
            Function::Bool => self.bool(&of),
            Function::Timestamp => self.timestamp(&of),
            Function::Part(part) => part.of(self, &of),
            Function::Contains | Function::StartsWith | Function::EndsWith => {
                unreachable!("the compiler counts arguments")
            }
        }
    }

    fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(.., function)| *function == self).map_or("", |(name, ..)| name)
    }

    #[cold]
    fn unfit(self, value: &Value) -> Error {
        failure(format!("{}({value}): not of a {}", self.name(), value.kind()))
    }

    #[cold]
    fn unreadable(self, text: &str) -> Error {
        failure(format!("{}({text:?}): the text is not of that form", self.name()))
    }

    fn text(self, value: &Value) -> Result<&str> {
        value.as_str().ok_or_else(|| self.unfit(value))
    }

    /// Characters, elements or fields.
    fn size(self, value: &Value) -> Result<Value> {
        match value {
            Value::Str(text) => Ok(Value::Int(text.chars().count() as i64)),
            Value::List(list) => Ok(Value::Int(list.len() as i64)),
            Value::Row(row) => Ok(Value::Int(row.values().len() as i64)),
            other => Err(self.unfit(other)),
        }
    }

    /// Towards zero; seconds of a time.
    fn int(self, value: &Value) -> Result<Value> {
        match value {
            Value::Int(int) => Ok(Value::Int(*int)),
            // The bounds are exclusive, as CEL has them: the upper one rounds up to 2^63.
            Value::Float(float) if *float > i64::MIN as f64 && *float < i64::MAX as f64 => {
                Ok(Value::Int(*float as i64))
            }
            Value::Float(float) => Err(failure(format!("int({float}) does not fit into 64 bits"))),
            Value::Str(text) => text.parse().map(Value::Int).map_err(|_| self.unreadable(text)),
            Value::Time(micros) => Ok(Value::Int(micros.div_euclid(1_000_000))),
            other => Err(self.unfit(other)),
        }
    }

    fn double(self, value: &Value) -> Result<Value> {
        match value {
            Value::Int(int) => Ok(Value::Float(*int as f64)),
            Value::Float(float) => Ok(Value::Float(*float)),
            Value::Str(text) => text.parse().map(Value::Float).map_err(|_| self.unreadable(text)),
            other => Err(self.unfit(other)),
        }
    }

    fn string(self, value: Cow<'_, Value>) -> Result<Value> {
        match &*value {
            Value::Str(_) => Ok(value.into_owned()),
            Value::Int(int) => Ok(Value::Str(int.to_string().into())),
            Value::Float(float) => Ok(Value::Str(float.to_string().into())),
            Value::Bool(bool) => Ok(Value::from(if *bool { "true" } else { "false" })),
            Value::Time(micros) => instant(*micros).map(|time| Value::Str(time.to_string().into())),
            other => Err(self.unfit(other)),
        }
    }

    /// As CEL has it: of texts only some spellings.
    fn bool(self, value: &Value) -> Result<Value> {
        match value {
            Value::Bool(bool) => Ok(Value::Bool(*bool)),
            Value::Str(text) => match text.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
                other => Err(self.unreadable(other)),
            },
            other => Err(self.unfit(other)),
        }
    }

    /// RFC 3339, or seconds since 1970.
    fn timestamp(self, value: &Value) -> Result<Value> {
        match value {
            Value::Time(micros) => Ok(Value::Time(*micros)),
            Value::Int(seconds) => {
                let micros = seconds.checked_mul(1_000_000).ok_or_else(|| self.unfit(value))?;
                instant(micros).map(|_| Value::Time(micros))
            }
            Value::Str(text) => match text.parse::<Timestamp>() {
                Ok(time) => Ok(Value::Time(time.as_microsecond())),
                Err(_) => Err(failure(format!("timestamp({text:?}): no time; write it as \"2001-01-31T00:00:00Z\""))),
            },
            other => Err(self.unfit(other)),
        }
    }
}

fn instant(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros)
        .map_err(|_| failure(format!("{micros} microseconds since 1970 is outside of the calendar")))
}

impl Part {
    fn of(self, function: Function, value: &Value) -> Result<Value> {
        let Value::Time(micros) = value else { return Err(function.unfit(value)) };
        let time = instant(*micros)?.to_zoned(TimeZone::UTC).datetime();
        Ok(Value::Int(match self {
            Part::Year => time.year().into(),
            Part::Month => i64::from(time.month()) - 1,
            Part::Date => time.day().into(),
            Part::DayOfMonth => i64::from(time.day()) - 1,
            Part::DayOfWeek => time.weekday().since(Weekday::Sunday).into(),
            Part::DayOfYear => i64::from(time.day_of_year()) - 1,
            Part::Hours => time.hour().into(),
            Part::Minutes => time.minute().into(),
            Part::Seconds => time.second().into(),
            Part::Milliseconds => time.millisecond().into(),
        }))
    }
}
