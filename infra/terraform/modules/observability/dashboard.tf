locals {
  # Rows of three; each graph is a title, a statistic and its metrics.
  graphs = [
    { title = "Tasks ended", stat = "Sum", metrics = [for outcome in ["succeeded", "failed", "cancelled", "expired", "quarantined"] : [local.namespace, "tasks_total", "grid", var.grid, "outcome", outcome]] },
    { title = "Oldest chunk that waits (s)", stat = "Maximum", metrics = [[local.namespace, "oldest_pending_seconds", "grid", var.grid]] },
    { title = "Executions per task", stat = "Average", metrics = [[local.namespace, "executions_per_task", "grid", var.grid]] },
    { title = "From submission to claim (s)", stat = "p95", metrics = [[local.namespace, "queue_delay_seconds", "grid", var.grid]] },
    { title = "From claim to end (s)", stat = "p95", metrics = [[local.namespace, "chunk_duration_seconds", "grid", var.grid]] },
    { title = "Sweeper, and hints for nothing", stat = "Sum", metrics = concat(
      [for name in ["sweep_hints_total", "sweep_expired_total", "sweep_recounted_total", "sweep_removed_total", "sweep_backed_off_total"] : [local.namespace, name, "grid", var.grid]],
      [[local.namespace, "orphan_hints_total", "grid", var.grid, "lane", "lambda"]],
    ) },
    { title = "Messages in queues", stat = "Maximum", metrics = [for queue in concat(var.queues, values(var.dead)) : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue]] },
    { title = "Containers that are wanted, and that run", stat = "Maximum", metrics = [for pair in setproduct(["containers_wanted", "containers_running"], ["spot", "on-demand"]) : [local.namespace, pair[0], "grid", var.grid, "lane", pair[1]]] },
    { title = "Lambdas at once", stat = "Maximum", metrics = [for name in values(var.functions) : ["AWS/Lambda", "ConcurrentExecutions", "FunctionName", name]] },
    { title = "Errors of Lambdas", stat = "Sum", metrics = [for pair in setproduct(["Errors", "Throttles"], values(var.functions)) : ["AWS/Lambda", pair[0], "FunctionName", pair[1]]] },
    { title = "Requests to the API", stat = "Sum", metrics = [for metric in ["Count", "4xx", "5xx"] : ["AWS/ApiGateway", metric, "ApiId", var.api_id]] },
    { title = "Units of the table", stat = "Sum", metrics = [for metric in ["ConsumedWriteCapacityUnits", "ConsumedReadCapacityUnits", "WriteThrottleEvents"] : ["AWS/DynamoDB", metric, "TableName", var.table]] },
    { title = "Age of the stream's records (ms)", stat = "Maximum", metrics = [["AWS/Lambda", "IteratorAge", "FunctionName", var.functions.result]] },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  count = var.dashboard ? 1 : 0

  dashboard_name = var.grid
  dashboard_body = jsonencode({ widgets = [for i, graph in local.graphs : {
    type   = "metric"
    x      = (i % 3) * 8
    y      = floor(i / 3) * 6
    width  = 8
    height = 6
    properties = {
      title   = graph.title
      region  = var.region
      view    = "timeSeries"
      stat    = graph.stat
      period  = 60
      metrics = graph.metrics
    }
  }] })
}
