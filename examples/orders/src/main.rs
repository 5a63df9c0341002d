//! A job crate: totals of orders by customer, with a limit. `orders.toml` is a job that uses it.
//!
//! ```console
//! $ cargo run --release -p orders -- run examples/orders/orders.toml
//! ```

use thalweg::prelude::*;

/// A line of `orders.csv`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Order {
    cents: u64,
}

/// What is known of a customer.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Total {
    orders: u64,
    cents: u64,
}

/// What the operator emits: the new total of a customer, and whether it is above the limit.
#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Report {
    customer: String,
    orders: u64,
    cents: u64,
    over: bool,
}

/// Running total per customer. Its field is a key of the operator's table in the job file.
#[derive(Deserialize)]
#[serde(crate = "thalweg::serde", deny_unknown_fields)]
struct Totals {
    /// Cents above which a customer is reported as over.
    limit: u64,
}

impl KeyedProcess for Totals {
    type Key = String;
    type In = Order;
    type State = Total;
    type Out = Report;
    const TIMERS: bool = false;

    fn process(
        &self,
        customer: &String,
        orders: &mut Records<Self>,
        state: &mut Option<Total>,
        out: &mut Output<Report>,
        _: &EpochCtx,
    ) -> Result<()> {
        let total = state.get_or_insert_default();
        for order in orders {
            total.orders += 1;
            total.cents = total.cents.checked_add(order.cents).ok_or("more cents than a u64 can count")?;
        }
        let Total { orders, cents } = *total;
        out.emit(Report { customer: customer.clone(), orders, cents, over: cents > self.limit });
        Ok(())
    }
}

fn main() -> thalweg::Exit {
    thalweg::job! { "orders::Totals" => Totals }
}
