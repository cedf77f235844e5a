output "id" {
  description = "Id of the API."
  value       = aws_apigatewayv2_api.this.id
}

output "url" {
  description = "Its URL, without a slash behind."
  value       = trimsuffix(aws_apigatewayv2_stage.this.invoke_url, "/")
}

output "execution_arn" {
  description = "What rights to call it name."
  value       = aws_apigatewayv2_api.this.execution_arn
}

output "routes" {
  description = "The routes as they are."
  value       = aws_apigatewayv2_route.this
}

output "has_cors" {
  description = "Whether pages of other sites may call."
  value       = length(aws_apigatewayv2_api.this.cors_configuration) > 0
}
