//! What a request is, and what it and its answer weigh on the bill.

use aws_sdk_s3::config::http::HttpRequest;
use serde_json::Value;
use sheaf_api::cost::MESSAGE_BYTES_BILLED;

use crate::schema::{INDEXES, Index};

/// One write unit and one read unit. Source: DynamoDB.
const WRITE_BYTES: u64 = 1_024;
const READ_BYTES: u64 = 4_096;

/// A request as the meter sees it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) service: String,
    pub(super) operation: String,
    pub(super) bytes: u64,
    /// What is billed for the request by itself; for what comes back, [`Weight::billed`] is added.
    pub(super) billed: u64,
    /// The request, of services that speak JSON and bill by content.
    json: Option<Value>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    Succeeded,
    Refused,
    Throttled,
    Failed,
}

/// What an answer adds to the bill.
#[derive(Debug, PartialEq)]
pub(super) struct Weight {
    pub(super) became: Became,
    pub(super) billed: u64,
    pub(super) write_units: f64,
    pub(super) read_units: f64,
}

impl Call {
    pub(super) fn of(request: &HttpRequest) -> Self {
        let header = |name| request.headers().get(name).unwrap_or_default();
        // …Credential=<key>/<day>/<region>/<service>/aws4_request, …
        let scope = header("authorization").split(',').next().unwrap_or_default();
        let service = scope.rsplit('/').nth(1).unwrap_or("unknown").to_owned();
        let operation = match header("x-amz-target").rsplit_once('.') {
            Some((_, operation)) => operation.to_owned(),
            None => rest_operation(&service, request.method(), request.uri()),
        };
        let body = request.body().bytes();
        let length = header("content-length").parse().ok().or_else(|| request.body().content_length());
        let bytes = length.or_else(|| body.map(|body| body.len() as u64)).unwrap_or_default();
        let speaks_json = matches!(service.as_str(), "dynamodb" | "sqs");
        let json = body.filter(|_| speaks_json).and_then(|body| serde_json::from_slice(body).ok());
        let billed = match service.as_str() {
            "sqs" => messages(sent(json.as_ref())),
            "events" => messages(bytes),
            _ => 1,
        };
        Self { service, operation, bytes, billed, json }
    }

    /// Whether the answer's content decides what is billed.
    pub(super) fn wants_answer(&self) -> bool {
        match self.service.as_str() {
            "dynamodb" => true,
            "sqs" => self.operation == "ReceiveMessage",
            _ => false,
        }
    }

    pub(super) fn weigh(&self, status: u16, answer: &[u8]) -> Weight {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let became = became(status, &answer);
        let mut weight = Weight { became, billed: 0, write_units: 0.0, read_units: 0.0 };
        if self.service == "sqs" {
            // A receive is billed by what it brings, instead of what it asks.
            let bodies = answer["Messages"].as_array().into_iter().flatten();
            let bytes = bodies.filter_map(|message| message["Body"].as_str()).map(|body| body.len() as u64).sum();
            weight.billed = messages(bytes) - 1;
        } else if self.service == "dynamodb" && matches!(became, Became::Succeeded | Became::Refused) {
            let units = consumed(&answer).or_else(|| self.units(became, &answer)).unwrap_or_default();
            *if self.is_write() { &mut weight.write_units } else { &mut weight.read_units } = units;
        }
        weight
    }

    fn is_write(&self) -> bool {
        matches!(self.operation.as_str(), "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem")
    }

    /// The rule for answers that do not say what they consumed (see [`super`]). `None` of what costs nothing.
    fn units(&self, became: Became, answer: &Value) -> Option<f64> {
        let request = self.json.as_ref()?;
        if became == Became::Refused {
            // Only a condition is found out by looking at the item.
            let is_condition = answer["__type"].as_str()?.ends_with("ConditionalCheckFailedException");
            let bytes = item_bytes(&request["Item"]).max(item_bytes(&answer["Item"]));
            return is_condition.then(|| units(bytes, WRITE_BYTES));
        }
        let factor = if request["ConsistentRead"] == true { 1.0 } else { 0.5 };
        match self.operation.as_str() {
            "PutItem" => {
                let item = &request["Item"];
                let entered = INDEXES.iter().filter(|index| is_in(item, index)).count();
                Some(units(item_bytes(item), WRITE_BYTES) + entered as f64)
            }
            "UpdateItem" => {
                let after = &answer["Attributes"];
                let bytes = item_bytes(after);
                Some(units(bytes, WRITE_BYTES) + INDEXES.iter().map(|index| moved(request, after, index)).sum::<f64>())
            }
            "DeleteItem" => Some(1.0),
            "BatchWriteItem" => {
                let tables = request["RequestItems"].as_object()?.values();
                Some(tables.filter_map(Value::as_array).map(Vec::len).sum::<usize>() as f64)
            }
            "GetItem" => Some(factor * units(item_bytes(&answer["Item"]), READ_BYTES)),
            "Query" => {
                let items = answer["Items"].as_array().into_iter().flatten();
                Some(factor * units(items.map(item_bytes).sum(), READ_BYTES))
            }
            "BatchGetItem" => {
                let tables = request["RequestItems"].as_object()?;
                let of_table = |(name, asked): (&String, &Value)| {
                    let factor = if asked["ConsistentRead"] == true { 1.0 } else { 0.5 };
                    let found = answer["Responses"][name].as_array().map_or(&[][..], Vec::as_slice);
                    // One that does not exist is read for a unit.
                    let missing = asked["Keys"].as_array().map_or(0, Vec::len).saturating_sub(found.len());
                    let read: f64 = found.iter().map(|item| units(item_bytes(item), READ_BYTES)).sum();
                    factor * (read + missing as f64)
                };
                Some(tables.iter().map(of_table).sum())
            }
            _ => None,
        }
    }
}

/// The operation of a service that names it by method and address.
fn rest_operation(service: &str, method: &str, uri: &str) -> String {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    };
    let has = |name| parameter(name).is_some();
    let operation = match (service, method) {
        ("lambda", "POST") if path.ends_with("/invocations") => "Invoke",
        ("s3", _) if has("x-id") => parameter("x-id").unwrap_or_default(),
        ("s3", "GET") if has("list-type") => "ListObjectsV2",
        ("s3", "GET") if has("uploads") || has("versions") => "List",
        ("s3", "GET") => "Get",
        ("s3", "HEAD") => "Head",
        ("s3", "POST") if has("delete") => "DeleteObjects",
        ("s3", "POST") => "Post",
        ("s3", "PUT") => "Put",
        ("s3", "DELETE") => "Delete",
        (_, method) => method,
    };
    operation.to_owned()
}

fn became(status: u16, answer: &Value) -> Became {
    let code = answer["__type"].as_str().unwrap_or_default();
    let is_throttled = ["Throttl", "ThroughputExceeded", "RequestLimitExceeded"].iter().any(|part| code.contains(part));
    match status {
        200..400 => Became::Succeeded,
        // S3 says "slow down" with 503.
        429 | 503 => Became::Throttled,
        _ if is_throttled => Became::Throttled,
        400..500 => Became::Refused,
        _ => Became::Failed,
    }
}

/// Bytes of messages in a request.
fn sent(request: Option<&Value>) -> u64 {
    let Some(request) = request else { return 0 };
    let entries = request["Entries"].as_array().into_iter().flatten();
    let bodies = entries.chain([request]).filter_map(|entry| entry["MessageBody"].as_str());
    bodies.map(|body| body.len() as u64).sum()
}

/// What is billed for messages of so many bytes.
const fn messages(bytes: u64) -> u64 {
    let billed = bytes.div_ceil(MESSAGE_BYTES_BILLED);
    if billed == 0 { 1 } else { billed }
}

/// What DynamoDB says that it consumed, if it does.
fn consumed(answer: &Value) -> Option<f64> {
    match &answer["ConsumedCapacity"] {
        Value::Null => None,
        Value::Array(tables) => Some(tables.iter().filter_map(|table| table["CapacityUnits"].as_f64()).sum()),
        table => table["CapacityUnits"].as_f64(),
    }
}

fn units(bytes: u64, unit_bytes: u64) -> f64 {
    bytes.div_ceil(unit_bytes).max(1) as f64
}

fn is_in(item: &Value, index: &Index) -> bool {
    !item[index.partition].is_null() && !item[index.sort].is_null()
}

/// Writes of an index that an update makes of which this came.
fn moved(request: &Value, after: &Value, index: &Index) -> f64 {
    let expression = request["UpdateExpression"].as_str().unwrap_or_default();
    let words: Vec<&str> = expression.split([' ', ',']).collect();
    let names = request["ExpressionAttributeNames"].as_object();
    let names_it = |key: &str| {
        let placeholder = names.and_then(|names| names.iter().find(|(_, name)| *name == key)).map(|(name, _)| name);
        placeholder.is_some_and(|placeholder| words.contains(&placeholder.as_str()))
    };
    match (names_it(index.partition), names_it(index.sort), is_in(after, index)) {
        // It left.
        (true, _, false) => 1.0,
        // It came.
        (true, _, true) => 1.0,
        (false, true, true) => 2.0,
        (false, _, _) => 0.0,
    }
}

/// The size of an item as DynamoDB counts it. Source: its developer guide, "item sizes and formats".
fn item_bytes(item: &Value) -> u64 {
    let attributes = item.as_object().into_iter().flatten();
    attributes.map(|(name, value)| name.len() as u64 + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> u64 {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    let text = |value: &Value| value.as_str().map_or(0, str::len) as u64;
    let number = |value: &Value| text(value).div_ceil(2) + 1;
    let binary = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        (text.len() / 4 * 3 - text.bytes().rev().take_while(|byte| *byte == b'=').count()) as u64
    };
    let all = |of: &dyn Fn(&Value) -> u64| value.as_array().into_iter().flatten().map(of).sum::<u64>();
    match kind.as_str() {
        "S" => text(value),
        "N" => number(value),
        "B" => binary(value),
        "SS" => all(&text),
        "NS" => all(&number),
        "BS" => all(&binary),
        "L" => 3 + all(&|value| 1 + value_bytes(value)),
        "M" => 3 + item_bytes(value) + value.as_object().map_or(0, serde_json::Map::len) as u64,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::primitives::SdkBody;
    use serde_json::json;

    use super::*;

    fn call(service: &str, operation: &str, json: Value) -> Call {
        Call { service: service.into(), operation: operation.into(), bytes: 0, billed: 1, json: Some(json) }
    }

    fn write_units(operation: &str, request: Value, status: u16, answer: Value) -> f64 {
        call("dynamodb", operation, request).weigh(status, answer.to_string().as_bytes()).write_units
    }

    fn read_units(operation: &str, request: Value, answer: Value) -> f64 {
        call("dynamodb", operation, request).weigh(200, answer.to_string().as_bytes()).read_units
    }

    #[test]
    fn requests_are_told_apart() {
        let request = |method: &str, uri: &str, service: &str, target: Option<&str>, body: &'static str| {
            let mut request = HttpRequest::new(SdkBody::from(body));
            request.set_method(method).expect("a method");
            request.set_uri(uri.to_owned()).expect("an address");
            let scope = format!(
                "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/{service}/aws4_request, SignedHeaders=a/b"
            );
            request.headers_mut().insert("authorization", scope);
            if let Some(target) = target {
                request.headers_mut().insert("x-amz-target", target.to_owned());
            }
            let call = Call::of(&request);
            format!("{} {} {} {}", call.service, call.operation, call.bytes, call.billed)
        };
        let host = "http://127.0.0.1";
        assert_eq!(request("POST", host, "dynamodb", Some("DynamoDB_20120810.GetItem"), "{}"), "dynamodb GetItem 2 1");
        assert_eq!(request("POST", host, "sqs", Some("AmazonSQS.ReceiveMessage"), "{}"), "sqs ReceiveMessage 2 1");
        let object = &format!("{host}/b/k");
        assert_eq!(request("PUT", &format!("{object}?x-id=PutObject"), "s3", None, "abc"), "s3 PutObject 3 1");
        assert_eq!(request("GET", &format!("{host}/b?list-type=2&prefix=x"), "s3", None, ""), "s3 ListObjectsV2 0 1");
        assert_eq!(request("POST", &format!("{host}/b/?delete"), "s3", None, ""), "s3 DeleteObjects 0 1");
        assert_eq!(request("HEAD", object, "s3", None, ""), "s3 Head 0 1");
        let invoke = format!("{host}/2015-03-31/functions/f/invocations");
        assert_eq!(request("POST", &invoke, "lambda", None, ""), "lambda Invoke 0 1");
    }

    #[test]
    fn messages_are_billed_per_64_kb() {
        let body = |bytes: usize| "x".repeat(bytes);
        let batch = |bytes: usize| json!({"Entries": [{"MessageBody": body(bytes)}, {"MessageBody": body(bytes)}]});
        assert_eq!(messages(sent(Some(&batch(10)))), 1);
        assert_eq!(messages(sent(Some(&batch(32 * 1024)))), 1);
        assert_eq!(messages(sent(Some(&batch(32 * 1024 + 1)))), 2);
        assert_eq!(messages(sent(Some(&json!({"MessageBody": body(200_000)})))), 4);
        let receive =
            |answer: Value| call("sqs", "ReceiveMessage", json!({})).weigh(200, answer.to_string().as_bytes());
        assert_eq!(receive(json!({})).billed, 0, "an empty one is billed as one, which is counted when it is sent");
        assert_eq!(receive(json!({"Messages": [{"Body": body(60_000)}, {"Body": body(60_000)}]})).billed, 1);
    }

    #[test]
    fn what_dynamodb_says_is_believed() {
        let item = json!({"Item": {"pk": {"S": "x".repeat(5_000)}}});
        let said = |units: f64| json!({"ConsumedCapacity": {"TableName": "t", "CapacityUnits": units}});
        assert_eq!(write_units("PutItem", item, 200, said(7.0)), 7.0);
        let both = json!({"ConsumedCapacity": [{"CapacityUnits": 1.5}, {"CapacityUnits": 2.0}]});
        assert_eq!(read_units("BatchGetItem", json!({}), both), 3.5);
    }

    /// The units of the table in [`crate::state`].
    #[test]
    fn transitions_weigh_what_their_table_says() {
        let open = json!({"pk": {"S": "C#j#0"}, "sk": {"S": "0"}, "dk": {"S": "D#1"}, "dr": {"B": "AAAA"}});
        let closed = json!({"pk": {"S": "C#j#0"}, "sk": {"S": "0"}, "dr": {"B": "AAAA"}});
        let names = json!({"#st": "st", "#dk": "dk", "#dr": "dr"});
        let update = |expression: &str, after: &Value| {
            let request = json!({"UpdateExpression": expression, "ExpressionAttributeNames": names});
            write_units("UpdateItem", request, 200, json!({"Attributes": after}))
        };
        assert_eq!(write_units("PutItem", json!({"Item": open}), 200, json!({})), 2.0, "T1");
        assert_eq!(update("SET #st = :v0, #dr = :v1 ADD #ep :v2", &open), 3.0, "T2 that moves the due time");
        assert_eq!(update("SET #st = :v0 ADD #ep :v2", &open), 1.0, "T2 that does not, T4, T5, T6");
        assert_eq!(update("SET #st = :v0 REMOVE #dk, #lu", &closed), 2.0, "T8, T9");
        let large = json!({"pk": {"S": "x".repeat(3_000)}});
        assert_eq!(update("SET #st = :v0", &large), 3.0);
    }

    #[test]
    fn a_refused_write_weighs_what_the_item_does() {
        let failed = |item: Value| json!({"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "Item": item});
        let request = json!({"UpdateExpression": "SET #dr = :v", "ExpressionAttributeNames": {"#dr": "dr"}});
        assert_eq!(write_units("UpdateItem", request.clone(), 400, failed(json!({"pk": {"S": "x"}}))), 1.0);
        assert_eq!(
            write_units("UpdateItem", request.clone(), 400, failed(json!({"pk": {"S": "x".repeat(1_500)}}))),
            2.0
        );
        let malformed = json!({"__type": "com.amazon.coral.validate#ValidationException"});
        assert_eq!(write_units("UpdateItem", request.clone(), 400, malformed), 0.0);
        let throttled = json!({"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"});
        let weight = call("dynamodb", "UpdateItem", request).weigh(400, throttled.to_string().as_bytes());
        assert_eq!((weight.became, weight.write_units), (Became::Throttled, 0.0));
    }

    #[test]
    fn reads_weigh_by_4_kb() {
        let item = |bytes: usize| json!({"v": {"S": "x".repeat(bytes)}});
        let consistent = json!({"ConsistentRead": true});
        assert_eq!(read_units("GetItem", consistent.clone(), json!({"Item": item(4_095)})), 1.0);
        assert_eq!(read_units("GetItem", consistent.clone(), json!({"Item": item(4_096)})), 2.0);
        assert_eq!(read_units("GetItem", consistent.clone(), json!({})), 1.0);
        assert_eq!(read_units("Query", json!({}), json!({"Items": [item(3_000), item(3_000)]})), 1.0);
        assert_eq!(read_units("Query", consistent, json!({"Items": [item(3_000), item(3_000)]})), 2.0);
        let batch = json!({"RequestItems": {"t": {"ConsistentRead": true, "Keys": [{}, {}, {}]}}});
        assert_eq!(read_units("BatchGetItem", batch, json!({"Responses": {"t": [item(5_000), item(10)]}})), 4.0);
    }

    #[test]
    fn items_have_the_size_that_dynamodb_counts() {
        assert_eq!(item_bytes(&json!({"ab": {"S": "abc"}})), 5);
        assert_eq!(item_bytes(&json!({"a": {"N": "12345"}})), 5);
        assert_eq!(item_bytes(&json!({"a": {"B": "AQI="}})), 3);
        assert_eq!(item_bytes(&json!({"a": {"BS": ["AQI=", "AQID"]}})), 6);
        assert_eq!(item_bytes(&json!({"a": {"BOOL": true}})), 2);
        assert_eq!(item_bytes(&json!({"a": {"M": {"b": {"S": "c"}}}})), 7);
        assert_eq!(item_bytes(&Value::Null), 0);
    }
}
