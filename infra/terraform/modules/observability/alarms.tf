# What is worth waking somebody for. Metrics of the grid's own are named in shared/telemetry/src/names.rs; a test compares them.
# An account has ten for nothing, and each metric that one looks at counts: 15.

locals {
  namespace = "Sheaf"
  of_grid   = { grid = var.grid }

  # Metrics of the grid: over the threshold in so many periods of so many seconds.
  own = {
    oldest-pending = {
      about     = "A chunk has been waiting for a worker for over ten minutes", metric = "oldest_pending_seconds"
      statistic = "Maximum", threshold = 600, period = 300, periods = 2
    }
    # Design: 1.01 without faults, 1.10 with workers dying all the time.
    executions = {
      about     = "Tasks are run more often than once", metric = "executions_per_task"
      statistic = "Average", threshold = 1.1, period = 300, periods = 3
    }
    sweep-hints = {
      about     = "The sweeper has to send many hints again: they are lost, or nobody serves their lane", metric = "sweep_hints_total"
      statistic = "Sum", threshold = 1000, period = 300, periods = 3
    }
    stream-poison = {
      about     = "Records of the table's stream could not be read", metric = "stream_poison_total"
      statistic = "Sum", threshold = 0, period = 300, periods = 1
    }
    notifications-lost = {
      about     = "Nobody could be told of jobs that have ended", metric = "notifications_lost_total"
      statistic = "Sum", threshold = 0, period = 300, periods = 1
    }
  }

  # Several Lambdas together.
  lambda = {
    errors = { about = "Lambdas fail", metric = "Errors", of = keys(var.functions), threshold = 5, periods = 2 }
    # Of the others, the work comes again.
    throttles = {
      about  = "Clients are turned away: the account's or the function's concurrency is used up"
      metric = "Throttles", of = ["submit", "read"], threshold = 100, periods = 3
    }
  }
}

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:It says which alarm rang; alarms cannot write to a topic with AWS's own key, and one of the customer's costs by the month
  count = var.alarms && var.email != "" ? 1 : 0
  name  = "${var.grid}-alarms"
}

resource "aws_sns_topic_subscription" "alarms" {
  count     = length(aws_sns_topic.alarms)
  topic_arn = aws_sns_topic.alarms[0].arn
  protocol  = "email"
  endpoint  = var.email
}

resource "aws_cloudwatch_metric_alarm" "own" {
  for_each = var.alarms ? local.own : {}

  alarm_name          = "${var.grid}-${each.key}"
  alarm_description   = each.value.about
  namespace           = local.namespace
  metric_name         = each.value.metric
  dimensions          = local.of_grid
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = aws_sns_topic.alarms[*].arn
  ok_actions          = aws_sns_topic.alarms[*].arn
}

resource "aws_cloudwatch_metric_alarm" "dead" {
  for_each = var.alarms ? var.dead : {}

  alarm_name          = "${var.grid}-${each.key}"
  alarm_description   = "Messages that nobody could handle lie in ${each.value}"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.value }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = aws_sns_topic.alarms[*].arn
  ok_actions          = aws_sns_topic.alarms[*].arn
}

resource "aws_cloudwatch_metric_alarm" "lambda" {
  for_each = var.alarms ? local.lambda : {}

  alarm_name          = "${var.grid}-lambda-${each.key}"
  alarm_description   = each.value.about
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = aws_sns_topic.alarms[*].arn
  ok_actions          = aws_sns_topic.alarms[*].arn

  metric_query {
    id          = "all"
    expression  = join("+", [for name in each.value.of : "FILL(${name},0)"])
    label       = each.value.metric
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { for name in each.value.of : name => var.functions[name] }
    content {
      id = metric_query.key
      metric {
        namespace   = "AWS/Lambda"
        metric_name = each.value.metric
        dimensions  = { FunctionName = metric_query.value }
        stat        = "Sum"
        period      = 300
      }
    }
  }
}
