# What starts the Lambdas, but for the API's.

locals {
  # The file is a list of patterns, each matching one kind of record.
  stream_patterns = [for pattern in jsondecode(var.stream_filter) : jsonencode(pattern)]
}

resource "aws_lambda_event_source_mapping" "hints" {
  for_each = toset([for name, queue in var.lanes : name if startswith(name, "lambda-")])

  event_source_arn                   = var.lanes[each.key].arn
  function_name                      = aws_lambda_function.this["dispatch"].arn
  batch_size                         = 10
  maximum_batching_window_in_seconds = 0
  function_response_types            = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = var.slots
  }

  depends_on = [module.role]
}

resource "aws_lambda_event_source_mapping" "uploads" {
  event_source_arn                   = var.uploads.arn
  function_name                      = aws_lambda_function.this["upload"].arn
  batch_size                         = 1
  maximum_batching_window_in_seconds = 0
  function_response_types            = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = min(var.slots, 10)
  }

  depends_on = [module.role]
}

# Files of many millions of tasks take it several invocations, each of which asks for the next.
resource "aws_lambda_function_recursion_config" "upload" {
  function_name  = aws_lambda_function.this["upload"].function_name
  recursive_loop = "Allow"
}

resource "aws_lambda_event_source_mapping" "stream" {
  event_source_arn                   = var.table.stream_arn
  function_name                      = aws_lambda_function.this["result"].arn
  starting_position                  = "TRIM_HORIZON"
  batch_size                         = 1000
  maximum_batching_window_in_seconds = 0
  function_response_types            = ["ReportBatchItemFailures"]
  bisect_batch_on_function_error     = true
  # What cannot be read is passed over by the function itself; what fails again and again is a busy table, or a function that
  # dies of one record. That one must not hold up the others until the stream forgets it, after a day.
  maximum_retry_attempts        = 300
  maximum_record_age_in_seconds = 86400

  filter_criteria {
    dynamic "filter" {
      for_each = local.stream_patterns
      content {
        pattern = filter.value
      }
    }
  }

  destination_config {
    on_failure {
      destination_arn = var.dead.arn
    }
  }

  depends_on = [module.role]
}

resource "aws_cloudwatch_event_rule" "sweep" {
  name                = "${var.grid}-sweep"
  description         = "Starts the sweeper of the grid ${var.grid}"
  schedule_expression = "rate(1 minute)"
}

resource "aws_cloudwatch_event_target" "sweep" {
  rule = aws_cloudwatch_event_rule.sweep.name
  arn  = aws_lambda_function.this["sweep"].arn

  # A late sweep is of no use: there is the next one.
  retry_policy {
    maximum_event_age_in_seconds = 60
    maximum_retry_attempts       = 0
  }
}

resource "aws_lambda_permission" "sweep" {
  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["sweep"].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.sweep.arn
}
