//! Tables for what expressions mean, and a comparison of the compiled form with the interpreter.

use thalweg_core::Value;

use super::interpreter::Interpreted;
use super::parse::Parsed;
use super::{AggregateFunction, Aggregation, Expression};

fn row(json: &str) -> Value {
    serde_json::from_str(json).expect("the row is JSON")
}

fn sample() -> Value {
    row(
        r#"{"delay":40,"mean":7.5,"origin":"LAX","none":null,"on":true,"list":[1,2,3],"a":{"b":{"c":5}},"row":1,"with space":2,"if":3}"#,
    )
}

/// The result as JSON, or the error after `!`.
fn check(text: &str, expected: &str) {
    let found = match Expression::compile(text) {
        Err(error) => format!("?{} {:?}", error.message, &text[error.range.clone()]),
        Ok(expression) => match expression.evaluate(&sample()) {
            Ok(value) => format!("{value}"),
            Err(error) => format!("!{}", error.message()),
        },
    };
    let shown = found.replace(&format!("expression `{text}`: "), "");
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn values() {
    for (text, expected) in [
        ("delay > 15", "true"),
        ("delay >= 40 && delay <= 40 && !(delay < 40)", "true"),
        ("delay == 40.0", "true"),
        ("delay + 1", "41"),
        ("-delay * 2 - 1", "-81"),
        ("delay / 7", "5"),
        ("delay % 7", "5"),
        ("delay / 7.0 > 5.7", "true"),
        ("mean * 2", "15.0"),
        ("delay + mean", "47.5"),
        ("origin + \"-\" + 'SFO'", "\"LAX-SFO\""),
        ("[1, 2] + list", "[1,2,1,2,3]"),
        ("a.b.c + 1", "6"),
        ("row[\"with space\"]", "2"),
        ("row.delay", "40"),
        ("row.row", "1"),
        ("row.if", "3"),
        ("a[\"b\"][\"c\"]", "5"),
        ("list[1]", "2"),
        ("origin in [\"LAX\", \"SFO\"]", "true"),
        ("2.0 in list && !(9 in list)", "true"),
        ("\"b\" in a", "true"),
        ("delay > 15 ? \"late\" : \"fine\"", "\"late\""),
        ("has(delay) && !has(nothing)", "true"),
        ("has(a.b) && !has(a.x)", "true"),
        ("has( delay ) ? \"has(nothing)\" : ''", "\"has(nothing)\""),
        ("has(nothing) && nothing > 3", "false"),
        ("nothing > 3 && false", "false"),
        ("true || nothing > 3", "true"),
        ("none == null", "true"),
        ("none != null && none > 5", "false"),
        ("origin == 5", "false"),
        ("size(origin) + origin.size() + size(list)", "9"),
        ("origin.contains(\"A\") && origin.startsWith(\"L\") && origin.endsWith(\"X\")", "true"),
        ("origin.lowerAscii() + ' x '.trim().upperAscii()", "\"laxX\""),
        ("int(\"12\") + int(7.9) + int(-7.9)", "12"),
        ("double(delay) / 16", "2.5"),
        ("string(delay) + string(mean) + string(on)", "\"407.5true\""),
        ("bool(\"true\")", "true"),
        ("timestamp(\"2001-01-31T12:30:00Z\")", "\"2001-01-31T12:30:00Z\""),
        ("int(timestamp(\"1970-01-01T00:01:00Z\"))", "60"),
        ("timestamp(\"2001-01-31T12:30:00Z\") < timestamp(\"2001-02-01T00:00:00+01:00\")", "true"),
        ("timestamp(\"2001-01-31T12:30:05Z\").getHours() + timestamp(0).getFullYear()", "1982"),
        ("timestamp(\"2001-01-31T12:30:05Z\").getDayOfWeek()", "3"),
        ("{\"origin\": origin, \"twice\": delay * 2}", "{\"origin\":\"LAX\",\"twice\":80}"),
        ("{\"x\": 1, \"y\": 2} == {\"y\": 2.0, \"x\": 1}", "true"),
        ("list.all(x, x > 0) && list.exists(x, x == 2) && !list.exists_one(x, x > 1)", "true"),
        ("list.map(x, x * 1.5)", "[1.5,3.0,4.5]"),
        ("list.filter(x, x > 1).map(x, x + delay)", "[42,43]"),
        ("list.map(x, list.map(y, x * y))", "[[1,2,3],[2,4,6],[3,6,9]]"),
        ("a.map(name, name)", "[\"b\"]"),
        ("list.exists(x, x / 0 == 1 || x == 2)", "true"),
        // By the interpreter.
        ("size(b\"abc\")", "3"),
        ("type(delay) == int", "true"),
        ("origin.substring(1) + origin.replace(\"L\", \"M\")", "\"AXMAX\""),
        ("math.greatest(delay, 41)", "41"),
        ("{origin: 1}", "{\"LAX\":1}"),
        ("\"a,b\".split(\",\")", "[\"a\",\"b\"]"),
        ("math.abs(-delay)", "40"),
        ("row.?nothing.orValue(5)", "5"),
        ("3u", "3"),
    ] {
        check(text, expected);
    }
}

#[test]
fn failures() {
    for (text, expected) in [
        (
            "nothing",
            "!the row has no field \"nothing\", only delay, mean, origin, none, on, list, a, row, with space, if; has(nothing) tells whether it is there",
        ),
        ("a.b.x", "!the row has no field \"x\", only c; has(x) tells whether it is there"),
        ("delay.x", "!field \"x\" of 40: a int has no fields"),
        (
            "9223372036854775807 + delay",
            "!9223372036854775807 + 40 does not fit into 64 bits; use double(…) for larger numbers",
        ),
        ("1e308 * delay", "!1e308 * 40.0 is too large for a number"),
        ("delay / 0", "!40 / 0: division by zero; test the divisor first, as in `n == 0 ? 0 : sum / n`"),
        ("delay / 0.0", "!40.0 / 0: division by zero; test the divisor first, as in `n == 0 ? 0 : sum / n`"),
        ("delay % 2.0", "!40.0 % 2.0: % takes whole numbers; use int(…)"),
        ("delay + origin", "!40 + \"LAX\": int and text do not go together"),
        ("none > 15", "!null and 15: null and int cannot be compared; test for null first, as in `x != null && x > 0`"),
        ("origin > 15", "!\"LAX\" and 15: text and int cannot be compared; use int(…) or double(…) on the text"),
        ("delay && on", "!40 is int; a condition is true or false"),
        ("list[3]", "!index 3 of a list of 3; the first is 0"),
        ("int(origin)", "!int(\"LAX\"): the text is not of that form"),
        ("origin.contains(5)", "!\"LAX\" and 5: contains takes texts, found text and int"),
        (
            "list.exists(x, x / 0 == 1)",
            "!1 / 0: division by zero; test the divisor first, as in `n == 0 ? 0 : sum / n`",
        ),
        ("", "?the expression is empty \"\""),
        ("delay >", "?the expression ends too early \"\""),
        ("delay > > 1", "?`>` does not fit here \">\""),
        ("delay = 1", "?`=` is no operator; equality is `==` \"=\""),
        ("(delay", "?the expression ends too early \"\""),
        ("delay + seize(list)", "?unknown function \"seize\"; did you mean \"size\"? \"(\""),
        ("origin.startWith(\"L\")", "?unknown function \"startWith\"; did you mean \"startsWith\"? \"(\""),
        ("contains(origin)", "?contains is called as text.contains(x) \"(\""),
        ("timestamp(\"yesterday\")", "?timestamp(\"yesterday\"): no time; write it as \"2001-01-31T00:00:00Z\" \"(\""),
        ("{\"a\": 1, \"a\": 2}", "?the name \"a\" is there twice \"\\\"a\\\"\""),
        ("has(1 + 2)", "?has() takes a field, as in has(delay) or has(customer.name) \"+\""),
        ("has(delay) && 'é' +", "?the expression ends too early \"\""),
        ("has(delay) && 'é' + * 2", "?`*` does not fit here \"*\""),
    ] {
        check(text, expected);
    }
    let deep = format!("{}1{}", "(1+".repeat(300), ")".repeat(300));
    assert!(Expression::compile(&deep).is_err());
    let long = format!("1{}", " + 1".repeat(1000));
    assert!(Expression::compile(&long).expect_err("deep").message.contains("nested more than"));
    assert!(Expression::compile(&"1".repeat(5000)).expect_err("long").message.contains("at most 4096"));
}

#[test]
fn fields() {
    for (text, expected) in [
        ("delay > 15 && row.origin == row[\"x y\"]", Some("delay origin x y")),
        ("a.b.c + size(list.map(x, x + y))", Some("a list y")),
        ("true ? math.abs(q) : a.all(v, v > row.z)", Some("a q z")),
        ("has(a.b)", Some("a")),
        ("has(z) && z > 1", None),
        ("size(row)", None),
        ("row[origin]", None),
    ] {
        let fields = Expression::compile(text).expect(text).fields();
        assert_eq!(
            fields.map(|fields| fields.into_iter().collect::<Vec<_>>().join(" ")).as_deref(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn aggregations() {
    for (text, function, argument, filter) in [
        ("count()", AggregateFunction::Count, None, true),
        ("count(delay > 45)", AggregateFunction::Count, None, false),
        ("sum(delay * 2)", AggregateFunction::Sum, Some("80"), true),
        ("mean(mean)", AggregateFunction::Mean, Some("7.5"), true),
        (" min( delay )", AggregateFunction::Min, Some("40"), true),
        ("max(has(none) ? none : 1)", AggregateFunction::Max, Some("null"), true),
        ("max(math.abs(delay))", AggregateFunction::Max, Some("40"), true),
    ] {
        let aggregation = Aggregation::parse(text).expect(text);
        assert_eq!(aggregation.function, function, "{text}");
        let value = aggregation.argument.as_ref().map(|argument| argument.evaluate(&sample()).expect(text).to_string());
        assert_eq!(value.as_deref(), argument, "{text}");
        assert_eq!(aggregation.includes(&sample()).expect(text), filter, "{text}");
    }
    for (text, expected) in [
        ("mean()", "mean() needs what to fold, as in mean(x)"),
        ("median(x)", "unknown fold \"median\"; there are count, sum, min, max and mean"),
        ("sum(x, y)", "sum takes one argument"),
        ("x", "not a fold; write one of count(), count(x > 1), sum(x), min(x), max(x), mean(x)"),
        ("sum(x) + 1", "not a fold; write one of count(), count(x > 1), sum(x), min(x), max(x), mean(x)"),
        ("sum(x +)", "`)` does not fit here"),
    ] {
        assert_eq!(Aggregation::parse(text).expect_err(text).message, expected, "{text}");
    }
}

/// splitmix64: seeded, so that a failure is found again. All numbers of a round are of one kind, as nothing is promoted in the
/// interpreter, and of small size where they are fractions, as those become infinite there.
struct Random {
    state: u64,
    fractions: bool,
}

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.next(of.len())]
    }

    fn value(&mut self) -> Value {
        match self.next(9) {
            0 => Value::Null,
            1 => Value::Bool(self.next(2) == 0),
            2..=5 if self.fractions => Value::Float([0.0, 1.0, -2.5, 15.0, 0.1][self.next(5)]),
            2..=5 => Value::Int([0, 1, -3, 7, 15, i64::MAX, i64::MIN][self.next(7)]),
            6 | 7 => Value::from(self.pick(&["", "a", "LAX", "lax", "12", "é"])),
            _ => Value::List((0..self.next(3)).map(|_| self.value()).collect()),
        }
    }

    fn row(&mut self) -> Value {
        let names: Vec<_> = ["a", "b", "c", "d"].into_iter().filter(|_| self.next(8) != 0).collect();
        let values = names.iter().map(|_| self.value()).collect();
        Value::Row(thalweg_core::Row::new(thalweg_core::Shape::new(names), values))
    }

    fn leaf(&mut self) -> &'static str {
        let number: &[&str] = if self.fractions { &["1.0", "0.0", "-3.5"] } else { &["1", "0", "-3", "15"] };
        match self.next(3) {
            0 => self.pick(number),
            1 => self.pick(&["true", "false", "null", "\"a\"", "\"LAX\"", "[]"]),
            _ => self.pick(&["a", "b", "c", "d"]),
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        if depth == 0 || self.next(6) == 0 {
            return self.leaf().to_owned();
        }
        let mut part = || self.expression(depth - 1);
        let (x, y, z) = (part(), part(), part());
        match self.next(16) {
            0..=2 if self.fractions => format!("({x} {} {y})", self.pick(&["+", "-", "*"])),
            0..=2 => format!("({x} {} {y})", self.pick(&["+", "-", "*", "/", "%"])),
            3 => format!("({x} / {})", if self.fractions { "4.0" } else { "4" }),
            4..=6 => format!("({x} {} {y})", self.pick(&["<", "<=", ">", ">=", "==", "!="])),
            7 | 8 => format!("({x} {} {y})", self.pick(&["&&", "||"])),
            9 => format!("({x} ? {y} : {z})"),
            10 => format!("!({x})"),
            11 => format!("({x} in [{y}, {z}])"),
            12 if self.fractions => format!("{}({x})", self.pick(&["double", "string", "-"])),
            12 => format!("{}({x})", self.pick(&["size", "int", "string", "-"])),
            13 => format!("({x}).{}({y})", self.pick(&["contains", "startsWith", "endsWith"])),
            14 => format!(
                "({x}).{}(v, v {} {y})",
                self.pick(&["all", "exists", "exists_one", "map", "filter"]),
                self.pick(&["==", ">"])
            ),
            _ => format!("has({}) && {x} == {y}", self.pick(&["row.a", "row.b"])),
        }
    }
}

/// The compiled form and the interpreter have the same value, or both have none.
#[test]
fn compiled_is_as_interpreted() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let mut random = Random { state: seed, fractions: false };
    let (mut values, mut failures) = (0, 0);
    for round in 0..12_000 {
        random.fractions = round % 2 == 0;
        let text = random.expression(3);
        let Ok(expression) = Expression::compile(&text) else { continue };
        assert!(expression.is_native(), "{text}");
        let reference = Interpreted::new(Parsed::new(&text).expect("compiles").root);
        let row = random.row();
        match (expression.evaluate(&row), reference.evaluate(&row)) {
            (Ok(native), Ok(interpreted)) if native == interpreted => values += 1,
            (Err(_), Err(_)) => failures += 1,
            (native, interpreted) => {
                panic!("SEED={seed} round {round}: {text} on {row}: {native:?}, interpreted {interpreted:?}");
            }
        }
    }
    assert!(values > 1_500 && failures > 1_500, "{values} values, {failures} failures: the expressions are too dull");
}

/// Whatever is typed, there is an expression or an error with a place in the text; never a panic.
#[test]
fn any_text_is_read_or_refused() {
    const PARTS: [&str; 44] = [
        "a", "b.c", "1", "2.5", "1u", "\"x\"", "'", "\"", "\"\"\"", "b'y'", "r'\\'", "(", ")", "[", "]", "{", "}", ",",
        ":", "?", ".", ".?", "+", "-", "*", "/", "%", "==", "=", "<", "&&", "||", "&", "!", " in ", "has(", "has(x)",
        "size", "all(x, ", "true", "é", "\n", "//", "`z`",
    ];
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let mut random = Random { state: seed, fractions: false };
    let mut compiled = 0;
    for _ in 0..8_000 {
        let text: String = (0..random.next(9)).map(|_| random.pick(&PARTS)).collect();
        match Expression::compile(&text) {
            Ok(expression) => {
                compiled += 1;
                let _ = expression.evaluate(&sample());
            }
            Err(error) => assert!(text.get(error.range.clone()).is_some(), "SEED={seed} {text:?}: {error:?}"),
        }
        let _ = Aggregation::parse(&text);
    }
    assert!(compiled > 200, "{compiled}: the texts are too wild");
}
