# Plans of a grid as it is by default. The provider is made up, so that everything is known and nothing is called.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  grid     = "night"
  region   = "eu-west-1"
  packages = "./tests/packages"
}

run "names" {
  command = apply

  assert {
    condition     = output.table == "night" && output.bucket == "night-123456789012-eu-west-1"
    error_message = "Table and bucket have the names that clients look for."
  }
  assert {
    condition = toset(keys(output.queues)) == toset(concat(
      [for pair in setproduct(["lambda", "spot", "on-demand"], ["high", "normal", "low"]) : "${pair[0]}-${pair[1]}"],
      ["uploads", "dead", "uploads-dead"],
    ))
    error_message = "There is a queue per lane and priority, one of uploads, and their dead letters."
  }
  assert {
    condition = jsondecode(jsondecode(aws_dynamodb_table_item.grid.item).json.S) == {
      version = 1, bucket = "night-123456789012-eu-west-1", queues = "night", api = output.api, slots = var.slots, lanes = {}
    }
    error_message = "The item G/GRID tells a client what it does not know."
  }
  assert {
    condition     = jsondecode(aws_dynamodb_table_item.grid.item).pk.S == "G" && jsondecode(aws_dynamodb_table_item.grid.item).sk.S == "GRID"
    error_message = "A client looks for G/GRID."
  }
  assert {
    condition     = output.cluster == null && length(module.workers) == 0 && length(module.budget) == 0
    error_message = "Without an image there are no containers, and no budget is made unless asked for."
  }
}

run "nothing_costs_while_idle" {
  command = apply

  assert {
    condition     = alltrue([for lambda in module.functions.deployed : lambda.reserved_concurrent_executions == null || lambda.reserved_concurrent_executions == -1])
    error_message = "No concurrency is reserved by default."
  }
  assert {
    condition     = module.data.settings.billing_mode == "PAY_PER_REQUEST" && !module.data.settings.has_key
    error_message = "The table is billed by the request, with AWS's own key."
  }
}

run "lambdas" {
  command = apply

  assert {
    condition     = toset(keys(module.functions.deployed)) == toset(["submit", "upload", "dispatch", "result", "read", "sweep"])
    error_message = "There are six Lambdas."
  }
  assert {
    condition = alltrue([for name, lambda in module.functions.deployed :
      lambda.function_name == "night-${name}" && lambda.runtime == "provided.al2023" && one(lambda.architectures) == "arm64"
    ])
    error_message = "Each has the grid's name before its own, and runs on Graviton."
  }
  assert {
    condition     = length(distinct(values(module.functions.roles))) == 6
    error_message = "Each has a role of its own."
  }
  assert {
    condition = alltrue([for lambda in module.functions.deployed : alltrue([
      for name in ["SHEAF_GRID", "SHEAF_TABLE", "SHEAF_BUCKET", "SHEAF_QUEUES", "SHEAF_SLOTS", "SHEAF_EVENT_BUS", "SHEAF_LOG"] :
      contains(keys(lambda.environment[0].variables), name)
    ])])
    error_message = "Each is told where everything is."
  }
  assert {
    condition     = !contains(keys(module.functions.deployed.submit.environment[0].variables), "SHEAF_SPOT")
    error_message = "Nobody serves the spot lane without containers."
  }
  assert {
    condition     = module.functions.deployed.submit.timeout <= 29 && module.functions.deployed.read.timeout <= 29 && module.functions.deployed.sweep.timeout > 60 && module.functions.deployed.sweep.timeout < 120
    error_message = "API Gateway waits for 30 s. A sweep may end its last round beside the next one, and no later."
  }
}

run "sources" {
  command = apply

  assert {
    condition = length(module.functions.sources.hints) == 3 && alltrue([for source in module.functions.sources.hints :
      source.batch_size == 10 && source.maximum_batching_window_in_seconds == 0 && contains(source.function_response_types, "ReportBatchItemFailures") &&
      source.scaling_config[0].maximum_concurrency == 100
    ])
    error_message = "Three queues of hints start dispatching Lambdas, at once, each message by itself."
  }
  assert {
    condition     = module.functions.sources.uploads.batch_size == 1 && contains(module.functions.sources.uploads.function_response_types, "ReportBatchItemFailures")
    error_message = "An uploaded file is one message."
  }
  assert {
    condition     = module.functions.sources.upload_recursion == "Allow"
    error_message = "A large file takes more invocations, each asking for the next, than Lambda takes for a loop."
  }
  assert {
    condition = (
      module.functions.sources.stream.bisect_batch_on_function_error && module.functions.sources.stream.maximum_retry_attempts > 0 &&
      module.functions.sources.stream.maximum_record_age_in_seconds > 0 && length(module.functions.sources.stream.filter_criteria[0].filter) > 0 &&
      length(module.functions.sources.stream.filter_criteria[0].filter) <= 5
    )
    error_message = "A bad record of the stream holds nothing up, and only some records are asked for."
  }
  assert {
    condition = alltrue([for name, seconds in module.data.visibilities :
      startswith(name, "lambda-") ? seconds >= module.functions.deployed.dispatch.timeout : name == "uploads" ? seconds >= module.functions.deployed.upload.timeout : seconds == 70
    ])
    error_message = "A message stays hidden for as long as its Lambda may run."
  }
}

run "api" {
  command = apply

  assert {
    condition     = alltrue([for route in module.api.routes : route.authorization_type == "AWS_IAM"])
    error_message = "Every route wants a signature."
  }
  assert {
    condition     = !module.api.has_cors
    error_message = "No other site's pages may call."
  }
  assert {
    condition     = length(module.api.routes) == 5
    error_message = "Reads of results go to one Lambda, all else to the other."
  }
}

run "a_queue_hides_messages_for_longer_when_its_lambda_may_run_longer" {
  command = apply
  variables {
    functions = { dispatch = { timeout_s = 300 } }
  }

  assert {
    condition     = module.functions.deployed.dispatch.timeout == 300 && module.data.visibilities["lambda-high"] == 360
    error_message = "Both follow the same variable."
  }
}

run "files_may_expire" {
  command = apply
  variables {
    inbox_days  = 7
    outbox_days = 30
  }

  assert {
    condition     = module.data.expiries == { "u/" = 1, "inbox/" = 7, "outbox/" = 30 }
    error_message = "Each prefix is kept for its own time."
  }
}

run "files_are_kept" {
  command = apply

  assert {
    condition     = module.data.expiries == { "u/" = 1 }
    error_message = "Only bodies of requests and answers go by themselves."
  }
}

run "alarms" {
  command = apply
  variables {
    alarm_email = "ops@example.com"
    budget_usd  = 50
  }

  assert {
    condition     = length(module.observability.alarms) == 9 && length(module.budget) == 1
    error_message = "There are nine alarms, and a budget."
  }
  assert {
    condition     = alltrue([for alarm in module.observability.alarms : length(alarm.alarm_actions) == 1])
    error_message = "Somebody is told."
  }
}
