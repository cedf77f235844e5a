//! Example functions, written as a user of the grid would write them: a JSON payload comes in, a JSON answer goes out,
//! and nothing here knows who calls. The same executable runs as an AWS Lambda function.
//!
//! | function | arguments | answer |
//! |---|---|---|
//! | `prime_numbers`, `naive_prime_numbers` | `n` | the primes up to `n` |
//! | `sum_prime_numbers` | `n` | their sum |
//! | `cmd_fact` | `n` | `n!` as a decimal string, `"undefined"` below 0 |
//! | `typeA` | `arg1`, `arg2`, `arg3` = `""` | `"arg1_arg2arg3"` |
//! | `typeB` | `arg1`, optional | `arg1`, or `"Not filled !"` |
//! | `greet` | `arg1`, `arg2` | `"arg1 arg2"` |
//! | `clone_product` | `product_id`, `new_product_id`, `coef` | how many items were copied |
//! | `sum_of_prices` | `product_id` | the sum, rounded |
//! | `delete_product` | `product_id` | a sentence that says so |
//! | `echo` | any JSON | the payload, byte for byte |
//! | `spin`, `sleep` | `ms` | `ms`, after computing or waiting for so long |
//!
//! The functions in [`faulty`] each fail in their own way.

mod arguments;
mod factorial;
mod failure;
pub mod faulty;
mod primes;
pub mod products;
mod text;

use std::{
    ops::RangeInclusive,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::OnceCell;

pub use crate::{arguments::Arguments, failure::Failure};
use crate::{products::Products, text::NOT_FILLED};

/// Every function, and what they keep between invocations: the database's connections, opened when first needed.
#[derive(Default)]
pub struct Functions {
    products: OnceCell<Products>,
}

impl Functions {
    /// Calls the function of this name with a JSON payload.
    ///
    /// # Errors
    /// [`Failure::UnknownFunction`] for any other name, and what the function itself refuses.
    pub async fn call(&self, name: &str, payload: &RawValue) -> Result<Box<RawValue>, Failure> {
        if name == "echo" {
            return Ok(payload.to_owned());
        }
        let args = Arguments::parse(name, payload)?;
        match name {
            "prime_numbers" => answer(&primes::sieve(args.integer_in("n", primes::N_RANGE)?)),
            "naive_prime_numbers" => answer(&primes::naive(args.integer_in("n", primes::N_RANGE)?)),
            "sum_prime_numbers" => answer(&primes::sum(args.integer_in("n", primes::N_RANGE)?)),
            "cmd_fact" => answer(&factorial::decimal(args.integer_in("n", factorial::N_RANGE)?)),
            "typeA" => answer(&format!(
                "{}_{}{}",
                args.text("arg1")?,
                args.text("arg2")?,
                args.optional_text("arg3")?.unwrap_or_default()
            )),
            "typeB" => match args.optional_text("arg1")? {
                Some(text) if !text.is_empty() => Ok(args.json("arg1")?.to_owned()),
                _ => answer(NOT_FILLED),
            },
            "greet" => answer(&format!("{} {}", args.text("arg1")?, args.text("arg2")?)),
            "spin" => spin(args.integer_in("ms", MS_RANGE)?),
            "sleep" => sleep(args.integer_in("ms", MS_RANGE)?).await,
            "clone_product" => {
                let (from, to) = (args.integer_in("product_id", IDS)?, args.integer_in("new_product_id", IDS)?);
                let coef = args.number("coef")?;
                answer(&self.products().await?.clone_product(from, to, coef).await?)
            }
            "sum_of_prices" => {
                let product = args.integer_in("product_id", IDS)?;
                answer(&self.products().await?.sum_of_prices(product).await?)
            }
            "delete_product" => {
                let product = args.integer_in("product_id", IDS)?;
                answer(&self.products().await?.delete_product(product).await?)
            }
            "crash" => faulty::crash(),
            "hang" => faulty::hang().await,
            "leak" => faulty::leak(),
            "shout" => answer(&faulty::shout(args.optional_integer("bytes")?.unwrap_or(faulty::SHOUT_BYTES))?),
            "huge" => answer(&faulty::huge(args.optional_integer("bytes")?.unwrap_or(faulty::HUGE_BYTES))),
            "leave" => answer(&faulty::leave(args.optional_integer("after_ms")?.unwrap_or(faulty::LEAVE_AFTER_MS))),
            "fail" => Err(faulty::fail(args.optional_text("type")?, args.optional_text("message")?)),
            "fail_times" => answer(&faulty::fail_times(args.integer("n")?, Path::new(&*args.text("file")?))?),
            "flaky" => answer(&faulty::flaky(args.optional_float("p")?.unwrap_or(0.5))?),
            unknown => Err(Failure::UnknownFunction { name: unknown.into() }),
        }
    }

    async fn products(&self) -> Result<&Products, Failure> {
        self.products.get_or_try_init(|| async { Products::from_env() }).await
    }
}

/// Bounds of an id: PostgreSQL's `integer`.
const IDS: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
/// Bounds of `ms`: up to an hour.
const MS_RANGE: RangeInclusive<i64> = 0..=3_600_000;

fn answer<T: Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, Failure> {
    to_raw_value(value).map_err(Failure::Answer)
}

/// Keeps a core busy.
fn spin(ms: u32) -> Result<Box<RawValue>, Failure> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(ms.into()) {
        std::hint::spin_loop();
    }
    answer(&ms)
}

/// Waits without using a core.
async fn sleep(ms: u32) -> Result<Box<RawValue>, Failure> {
    tokio::time::sleep(Duration::from_millis(ms.into())).await;
    answer(&ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(name: &str, payload: &str) -> Result<String, String> {
        let payload = RawValue::from_string(payload.into()).expect("JSON");
        let answered = Functions::default().call(name, &payload).await;
        answered.map(|answer| answer.get().into()).map_err(|failure| format!("{}: {failure}", failure.kind()))
    }

    #[tokio::test]
    async fn answers() {
        for (name, payload, answer) in [
            ("prime_numbers", r#"{"n":30}"#, "[2,3,5,7,11,13,17,19,23,29]"),
            ("naive_prime_numbers", r#"{"n":30}"#, "[2,3,5,7,11,13,17,19,23,29]"),
            ("prime_numbers", r#"{"n":-7}"#, "[]"),
            ("sum_prime_numbers", r#"{"n":30}"#, "129"),
            ("cmd_fact", r#"{"n":20}"#, r#""2432902008176640000""#),
            ("cmd_fact", r#"{"n":-1}"#, r#""undefined""#),
            ("typeA", r#"{"arg1":"a","arg2":"b"}"#, r#""a_b""#),
            ("typeA", r#"{"arg1":1,"arg2":2.50,"arg3":"c"}"#, r#""1_2.5c""#),
            ("typeB", r#"{"arg1":"x"}"#, r#""x""#),
            ("typeB", r#"{"arg1":0}"#, "0"),
            ("typeB", r#"{"arg1":""}"#, r#""Not filled !""#),
            ("typeB", r#"{"arg1":null}"#, r#""Not filled !""#),
            ("typeB", "{}", r#""Not filled !""#),
            ("greet", r#"{"arg1":"Hello","arg2":"world"}"#, r#""Hello world""#),
            ("echo", r#"{ "any":  [1.50, "é"] }"#, r#"{ "any":  [1.50, "é"] }"#),
            ("spin", r#"{"ms":1}"#, "1"),
            ("sleep", r#"{"ms":1}"#, "1"),
        ] {
            assert_eq!(call(name, payload).await.as_deref(), Ok(answer), "{name} {payload}");
        }
    }

    #[tokio::test]
    async fn refusals_name_the_function_and_the_argument() {
        for (name, payload, refusal) in [
            ("prime_numbers", "{}", "InvalidArgument: prime_numbers: argument n is missing"),
            ("prime_numbers", "[1]", "InvalidArgument: prime_numbers: the payload is not an object of arguments"),
            ("cmd_fact", r#"{"n":"ten"}"#, r#"InvalidArgument: cmd_fact: argument n must be an integer, but is "ten""#),
            ("cmd_fact", r#"{"n":2.0}"#, "InvalidArgument: cmd_fact: argument n must be an integer, but is 2.0"),
            (
                "sum_prime_numbers",
                r#"{"n":100000001}"#,
                "InvalidArgument: sum_prime_numbers: argument n must be at most 100000000, but is 100000001",
            ),
            (
                "typeA",
                r#"{"arg1":"a","arg2":[]}"#,
                "InvalidArgument: typeA: argument arg2 must be a string or a number, but is []",
            ),
            ("nothing", "{}", r#"UnknownFunction: no function is called "nothing""#),
            ("fail", "{}", "ExampleFailure: failed as asked"),
            ("fail", r#"{"type":"Grave","message":"it is over"}"#, "Grave: it is over"),
        ] {
            assert_eq!(call(name, payload).await, Err(refusal.into()), "{name} {payload}");
        }
    }
}
